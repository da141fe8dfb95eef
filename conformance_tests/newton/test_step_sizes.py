"""Step sizes of Summary-Newton: the conditions they must meet, on every kind of subproblem and in every framework."""

import math
from typing import Any

import mpmath
import numpy as np
import pytest

from conformance_tests.distances import largest
from conformance_tests.newton.frameworks import FRAMEWORKS
from conformance_tests.newton.subproblems import BOUNDED, KINDS, Subproblem, residual, solved, subproblem, value
from conformance_tests.tiers import nightly_but
from inna_core import NewtonStatus, newton_step_sizes

SEEDS = {"some": range(60), "ten thousand": range(60, 770)}
"""Of random subproblems, of each kind."""


EXAMPLE = Subproblem(
    np.asarray([98, 42.25]), np.asarray([[441, 136.5], [136.5, 126.75]]), np.asarray([0, 274.625]), 1.0
)
ONE_GROUP = Subproblem(np.asarray([140.25]), np.asarray([[840.75]]), np.asarray([2185.625]), 1.0)
SINGLETONS = Subproblem(
    np.asarray([49, 49, 42.25]),
    np.asarray([[49, 147, 91], [147, 98, 45.5], [91, 45.5, 126.75]]),
    np.asarray([0, 0, 274.625]),
    1.0,
)


# JAX compiles each size anew, and is compared with NumPy below
@pytest.mark.parametrize("framework", nightly_but(["numpy", "strict", "torch"], FRAMEWORKS))
def test_step_sizes_of_the_hand_computed_example(framework: str) -> None:
    """L = (t1^2 + 2 t2^2)/2 + t1 t2 t3 + t3^3/6 at (1, 2, 3), along its gradient, in two groups, one, and three."""
    make, solve = FRAMEWORKS[framework]()
    for p, damping, want, radius in (
        (EXAMPLE, 0.0, (5 / 28, 11 / 78), 6.5 * 11 / 78),
        (EXAMPLE, 1.0, (0.185609145033, 0.118288403227), 0.768874620973),
        (ONE_GROUP, 0.0, (0.166815343443,), 0.166815343443 * 2185.625 ** (1 / 3)),
        (ONE_GROUP, 1.0, (0.140980890182,), 0.140980890182 * 2185.625 ** (1 / 3)),
    ):
        result = solve(make(p.gradient), make(p.hessian), make(p.third), damping=damping)
        assert int(result.status) == NewtonStatus.MINIMISER
        assert np.max(np.abs(np.asarray(result.eta) - want)) <= 1e-11
        assert abs(float(result.radius) - radius) <= 1e-11
    result = solve(make(SINGLETONS.gradient), make(SINGLETONS.hessian), make(SINGLETONS.third), damping=1.0)
    assert int(result.status) == NewtonStatus.CONVEXIFIED
    assert np.all(np.isfinite(np.asarray(result.eta)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framework", nightly_but(["strict", "torch", "jax"], [x for x in FRAMEWORKS if x != "numpy"]))
def test_frameworks_agree_with_numpy(framework: str, kind: str) -> None:
    make, solve = FRAMEWORKS[framework]()
    for seed in range(4):
        p = subproblem(kind, seed, size=5)
        want = solved(p)
        got = solve(make(p.gradient), make(p.hessian), make(p.third), damping=p.damping)
        eta = np.asarray(got.eta)
        if kind in ("hard", "no gradient"):
            # of two minimisers rounding may choose, so that only their values agree
            assert int(got.status) in (NewtonStatus.MINIMISER, NewtonStatus.HARD_CASE)
            assert math.isclose(value(p, eta), value(p, want.eta), rel_tol=1e-9)
        else:
            assert int(got.status) == int(want.status)
            assert np.max(np.abs(eta - want.eta)) <= 1e-9 * np.max(np.abs(want.eta))


# --- what a minimiser is


@pytest.mark.parametrize("seeds", nightly_but(["some"], SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_solutions_meet_the_optimality_conditions(kind: str, seeds: str) -> None:
    """Residual at most 1e-10 and M(r) positive semidefinite to -1e-10 where a minimiser exists, status otherwise."""
    for seed in SEEDS[seeds]:
        p = subproblem(kind, seed)
        result = solved(p)
        assert np.all(np.isfinite(result.eta)), seed
        assert np.isfinite(result.radius), seed
        if kind in BOUNDED:
            assert int(result.status) in (NewtonStatus.MINIMISER, NewtonStatus.HARD_CASE), seed
            error, least = residual(p, result.eta)
            assert error <= 1e-10, seed
            assert least >= -1e-10, seed
        else:
            assert int(result.status) == NewtonStatus.CONVEXIFIED, seed


def by_bisection(p: Subproblem) -> list[Any]:
    """Return the minimiser in 50-digit arithmetic: bisect on r, Cholesky tells on which side of the pole it is."""
    mp = mpmath.mp
    mp.dps = 50
    S = len(p.gradient)
    g, H = mpmath.matrix(p.gradient.tolist()), mpmath.matrix(p.hessian.tolist())
    d = [mpmath.root(abs(mpmath.mpf(t)), 3) for t in p.third.tolist()]

    def at(r: Any) -> tuple[Any, Any] | None:
        M = H + mpmath.diag([mpmath.mpf(p.damping) * r * x * x / 2 for x in d])
        try:
            mpmath.cholesky(M)
        except ValueError:
            return None
        eta = mpmath.lu_solve(M, g)
        return eta, mpmath.sqrt(sum((x * e) ** 2 for x, e in zip(d, eta, strict=True)))

    low, high = mpmath.mpf(0), mpmath.mpf(1)
    while (found := at(high)) is None or found[1] > high:
        high *= 4
    for _ in range(200):
        middle = (low + high) / 2
        found = at(middle)
        low, high = (low, middle) if found is not None and found[1] <= middle else (middle, high)
    found = at(high)
    assert found is not None
    return [found[0][s] for s in range(S)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["definite", "indefinite", "singular", "graded", "some zero thirds", "rank one"])
def test_solutions_agree_with_bisection_in_50_digits(kind: str, seed: int) -> None:
    p = subproblem(kind, 1000 + seed, size=4)
    eta, want = solved(p).eta, by_bisection(p)
    # in units of each group's curvature, in which the entries of eta compare
    unit = 1 / np.sqrt(np.abs(np.diag(p.hessian)))
    scale = max(abs(w) / u for w, u in zip(want, unit, strict=True))
    assert largest(float(abs(w - e) / u) for w, e, u in zip(want, eta, unit, strict=True)) <= 1e-10 * scale


def test_no_other_step_sizes_have_a_lower_value() -> None:
    """Global minimisers: 200 random step sizes around the result, near and far, and its mirror image, are no better."""
    rng = np.random.default_rng(0)
    for kind in BOUNDED:
        for seed in range(5):
            p = subproblem(kind, 2000 + seed, size=3)
            eta = solved(p).eta
            best = value(p, eta)
            units = np.maximum(np.abs(eta), np.max(np.abs(eta)) * 1e-3 + 1e-300)
            others = [eta + units * rng.standard_normal(3) * 10.0 ** rng.uniform(-4, 1) for _ in range(200)]
            assert min(value(p, other) for other in [*others, -eta]) >= best - 1e-12 * (abs(best) + 1e-300)


# --- limits


@pytest.mark.parametrize("seed", range(50))
def test_one_group_in_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, h, t = abs(rng.standard_normal()), rng.standard_normal() * 10.0 ** rng.integers(-3, 4), rng.standard_normal()
    lam = 10.0 ** rng.uniform(-2, 1)
    # 2 g / (h + root) is the root of the quadratic equation that does not cancel for h > 0
    root = math.sqrt(h * h + 2 * lam * abs(t) * g)
    want = 2 * g / (h + root) if h > 0 else (-h + root) / (lam * abs(t))
    result = newton_step_sizes(np.asarray([g]), np.asarray([[h]]), np.asarray([t]), damping=lam)
    assert math.isclose(float(result.eta[0]), want, rel_tol=1e-12)


def quadratic(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the Hessian, a point, and the gradient there of a convex quadratic."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    A = A @ A.T + np.eye(n)
    theta = rng.standard_normal(n)
    return A, theta, A @ theta


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_one_group_is_the_exact_line_search(seed: int, damping: float) -> None:
    A, theta, u = quadratic(seed)
    eta = newton_step_sizes(np.asarray([u @ u]), np.asarray([[u @ A @ u]]), np.zeros(1), damping=damping).eta[0]
    assert math.isclose(float(eta), (u @ u) / (u @ A @ u), rel_tol=1e-13)
    # the next gradient is orthogonal to the direction
    assert abs(A @ (theta - eta * u) @ u) <= 1e-11 * (u @ u)


@pytest.mark.parametrize("seed", range(10))
def test_one_scalar_per_group_is_newtons_step(seed: int) -> None:
    A, theta, u = quadratic(seed)
    eta = newton_step_sizes(u * u, A * u[:, None] * u[None, :], np.zeros(len(u)), damping=1.0).eta
    # the minimum of the quadratic is 0
    assert np.max(np.abs(theta - eta * u)) <= 1e-12 * np.max(np.abs(theta))


# --- the rest of the contract


def test_an_uninformative_group_gets_step_size_zero() -> None:
    p = subproblem("zero rows", 3, size=8)
    zero = p.third == 0
    assert 0 < zero.sum() < 8
    eta = solved(p).eta
    assert np.all(eta[zero] == 0)
    assert np.all(eta[~zero] != 0)


def test_a_linear_unbounded_group_gets_step_size_zero_and_is_reported() -> None:
    result = newton_step_sizes(np.asarray([1.0, 1.0]), np.diag([0.0, 2.0]), np.zeros(2), damping=1.0)
    assert result.eta.tolist() == [0.0, 0.5]
    assert int(result.status) == NewtonStatus.CONVEXIFIED


def test_a_convexified_model_takes_absolute_eigenvalues() -> None:
    result = newton_step_sizes(np.asarray([1.0, 3.0, 1.0]), np.diag([-2.0, 4.0, 0.0]), np.zeros(3), damping=1.0)
    assert result.eta.tolist() == [0.5, 0.75, 0.0]
    assert int(result.status) == NewtonStatus.CONVEXIFIED


def test_the_hard_case_chooses_the_sign_whose_step_sizes_sum_to_more() -> None:
    """H = diag(-1, 2), T = 1: M(2) = diag(0, 3), eta = (tau, g/3) with tau^2 = 4 - (g/3)^2."""
    for flip in (1.0, -1.0):
        result = newton_step_sizes(np.asarray([0.0, flip]), np.diag([-1.0, 2.0]), np.ones(2), damping=1.0)
        assert int(result.status) == NewtonStatus.HARD_CASE
        assert np.allclose(result.eta, [math.sqrt(4 - 1 / 9), flip / 3], rtol=1e-12, atol=0)


def test_the_floor_of_the_third_derivative_bounds_a_step_along_a_flat_direction() -> None:
    g, H, T = np.asarray([1.0]), np.asarray([[-1e-2]]), np.zeros(1)
    eta = newton_step_sizes(g, H, T, damping=1.0, third_floor=1.0).eta
    root = math.sqrt(1e-4 + 2 * 1e-4)
    assert math.isclose(float(eta[0]), (1e-2 + root) / 1e-4, rel_tol=1e-12)
    # a floor below the third derivative changes nothing
    p = subproblem("definite", 1, size=4)
    small = 1e-3 * float(np.min(np.abs(p.third * p.gradient) / np.diag(p.hessian) ** 2))
    assert np.array_equal(solved(p, third_floor=small).eta, solved(p).eta)


@pytest.mark.parametrize("exponent", [30, 300])
def test_extreme_numbers_stay_finite(exponent: int) -> None:
    """Without a warning of NumPy's, which this suite turns into an error."""
    big = 10.0**exponent
    for g in (1 / big, 1.0, big):
        for h in (0.0, 1 / big, 1.0, big):
            for t in (0.0, 1 / big, 1.0, big):
                for H in ([[1, 0.5], [0.5, -1]], [[1, 0.5], [0.5, 1 / big]], [[1 / big, 0.5], [0.5, 1 / big]]):
                    third = t * np.asarray([1.0, 2])
                    result = newton_step_sizes(g * np.asarray([1.0, 2]), h * np.asarray(H), third, damping=1.0)
                    assert np.all(np.isfinite(result.eta))
                    assert np.isfinite(result.radius)
                    if exponent == 30:
                        assert int(result.status) != NewtonStatus.FAILED


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_input_that_is_not_finite_is_reported(bad: float) -> None:
    for i in range(3):
        arrays = [np.ones(2), np.eye(2), np.ones(2)]
        arrays[i] = arrays[i] * bad if i != 1 else np.full((2, 2), bad)
        result = newton_step_sizes(*arrays, damping=1.0)
        assert int(result.status) == NewtonStatus.FAILED
        assert result.eta.tolist() == [0.0, 0.0]
        assert float(result.radius) == 0.0


def test_dtype_and_namespace_are_kept() -> None:
    p = subproblem("indefinite", 0, size=3)
    narrow = [x.astype(np.float32) for x in (p.gradient, p.hessian, p.third)]
    result = newton_step_sizes(*narrow, damping=1.0)
    assert result.eta.dtype == result.radius.dtype == np.float32
    wide = newton_step_sizes(*(x.astype(np.float64) for x in narrow), damping=1.0)
    # computed in float64 inside: the result is the rounded one
    assert np.array_equal(result.eta, wide.eta.astype(np.float32))


def test_inputs_are_not_changed() -> None:
    p = subproblem("indefinite", 0, size=5)
    for x in (p.gradient, p.hessian, p.third):
        x.flags.writeable = False
    assert int(solved(p).status) == NewtonStatus.MINIMISER


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"damping": -1.0}, ValueError, "Invalid damping: -1.0 (expected a finite number >= 0)"),
        ({"damping": math.nan}, ValueError, "Invalid damping: nan"),
        ({"damping": "1"}, TypeError, "Invalid damping: '1'"),
        ({"third_floor": -1.0}, ValueError, "Invalid third_floor: -1.0"),
        ({"gradient": np.ones((2, 1))}, ValueError, "Invalid gradient: shape (2, 1) (expected (S,) with S >= 1)"),
        ({"gradient": np.ones(0)}, ValueError, "Invalid gradient: shape (0,)"),
        ({"hessian": np.ones(2)}, ValueError, "Invalid hessian: shape (2,) (expected (2, 2))"),
        ({"third": np.ones(3)}, ValueError, "Invalid third: shape (3,) (expected (2,))"),
        (
            {"third": np.ones(2, np.float32)},
            TypeError,
            "Invalid third: dtype float32 (expected the gradient's, float64)",
        ),
        ({"gradient": np.ones(2, int)}, TypeError, "Invalid gradient: dtype int64"),
        ({"hessian": None}, TypeError, "Invalid hessian: None (expected an array)"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"gradient": np.ones(2), "hessian": np.eye(2), "third": np.ones(2), "damping": 1.0}
    with pytest.raises(error) as caught:
        newton_step_sizes(**{**good, **changes})
    assert message in str(caught.value)
