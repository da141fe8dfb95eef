"""Step sizes of Summary-Newton: the conditions they must meet, on every kind of subproblem and in every framework."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest

from conformance_tests.newton.subproblems import BOUNDED, KINDS, Subproblem, residual, subproblem, value
from inna_core import NewtonStatus, newton_step_sizes
from inna_core.newton import Summary, nonnegative_step_sizes, proportional_step_sizes

N_INSTANCES = 10_000


def solved(p: Subproblem, **changes: Any) -> Any:
    return newton_step_sizes(p.gradient, p.hessian, p.third, damping=p.damping, **changes)


# --- frameworks


def numpy_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return np.asarray, newton_step_sizes


def strict_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    return xp.asarray, newton_step_sizes


def torch_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.tensor, newton_step_sizes


def jax_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray, newton_step_sizes


def jax_jit() -> tuple[Callable[..., Any], Callable[..., Any]]:
    make, solve = jax_arrays()
    import jax

    return make, jax.jit(solve)


FRAMEWORKS = {"numpy": numpy_arrays, "strict": strict_arrays, "torch": torch_arrays, "jax": jax_arrays, "jit": jax_jit}

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


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_example_worked_by_hand(framework: str) -> None:
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
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_frameworks_agree(framework: str, kind: str) -> None:
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


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_subproblems(kind: str) -> None:
    """Residual at most 1e-10 and M(r) positive semidefinite to -1e-10 where a minimiser exists, status otherwise."""
    for seed in range(math.ceil(N_INSTANCES / len(KINDS))):
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
def test_against_50_digits(kind: str, seed: int) -> None:
    p = subproblem(kind, 1000 + seed, size=4)
    eta, want = solved(p).eta, by_bisection(p)
    # in units of each group's curvature, in which the entries of eta compare
    unit = 1 / np.sqrt(np.abs(np.diag(p.hessian)))
    scale = max(abs(w) / u for w, u in zip(want, unit, strict=True))
    assert max(abs(w - e) / u for w, e, u in zip(want, eta, unit, strict=True)) <= 1e-10 * scale


def test_no_step_size_has_a_lower_value() -> None:
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


# --- invariances

INVARIANT = [kind for kind in KINDS if kind not in ("hard", "no gradient", "zero rows")]


def largest_change(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_the_direction_divides_the_step_sizes(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 3000 + seed, size=6)
        for c in (1e-3, 1.7, 1e3):
            q = Subproblem(c * p.gradient, c**2 * p.hessian, c**3 * p.third, p.damping)
            assert largest_change(c * solved(q).eta, solved(p).eta) <= 1e-9, (seed, c)


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_the_loss_changes_nothing(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 4000 + seed, size=6)
        for c in (1e-9, 1.7, 1e9):
            q = Subproblem(c * p.gradient, c * p.hessian, c * p.third, p.damping)
            assert largest_change(solved(q).eta, solved(p).eta) <= 1e-9, (seed, c)


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_each_group_over_six_decades(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 5000 + seed, size=6)
        c = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, 6)
        q = Subproblem(c * p.gradient, p.hessian * c[:, None] * c, c**3 * p.third, p.damping)
        assert largest_change(c * solved(q).eta, solved(p).eta) <= 1e-9, seed


@pytest.mark.parametrize("kind", INVARIANT)
def test_the_order_of_groups_does_not_matter(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 6000 + seed, size=6)
        order = np.random.default_rng(seed).permutation(6)
        q = Subproblem(p.gradient[order], p.hessian[np.ix_(order, order)], p.third[order], p.damping)
        assert largest_change(solved(q).eta, solved(p).eta[order]) <= 1e-9, seed


def test_the_trajectory_does_not_depend_on_the_units_of_parameters() -> None:
    """One scalar per group, theta_s = a_s theta~_s over six decades: eta -> eta / a^2, the same iterates."""
    a = np.asarray([1e-3, 1.0, 1e3])

    def descend(unit: np.ndarray) -> np.ndarray:
        # L = (t1^2 + 2 t2^2)/2 + t1 t2 t3 / 9 + t3^4/24 + t3^2
        theta = np.asarray([1.0, 2.0, 3.0]) / unit
        for _ in range(8):
            t1, t2, t3 = theta * unit
            u = np.asarray([t1 + t2 * t3 / 9, 2 * t2 + t1 * t3 / 9, t1 * t2 / 9 + t3**3 / 6 + 2 * t3]) * unit
            H = np.asarray([[1, t3 / 9, t2 / 9], [t3 / 9, 2, t1 / 9], [t2 / 9, t1 / 9, t3**2 / 2 + 2]])
            H = H * unit[:, None] * unit * u[:, None] * u
            T = np.asarray([0, 0, t3]) * unit**3 * u**3
            theta = theta - 0.5 * newton_step_sizes(u * u, H, T, damping=1.0).eta * u
        return theta * unit

    assert largest_change(descend(a), descend(np.ones(3))) <= 1e-9


# --- the rest of the contract


def test_a_group_without_information_stays() -> None:
    p = subproblem("zero rows", 3, size=8)
    zero = p.third == 0
    assert 0 < zero.sum() < 8
    eta = solved(p).eta
    assert np.all(eta[zero] == 0)
    assert np.all(eta[~zero] != 0)


def test_a_group_with_a_gradient_alone_stays_and_is_reported() -> None:
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
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"gradient": np.ones(2), "hessian": np.eye(2), "third": np.ones(2), "damping": 1.0}
    with pytest.raises(error) as caught:
        newton_step_sizes(**{**good, **changes})
    assert message in str(caught.value)


# --- step sizes that may not be negative


def none_negative(p: Subproblem, make: Callable[..., Any] = np.asarray, loop: Any = None) -> Any:
    solve = partial(newton_step_sizes, damping=p.damping, loop=loop)
    return nonnegative_step_sizes(Summary(make(p.gradient), make(p.hessian), make(p.third)), solve, loop)


def proportional(p: Subproblem, make: Callable[..., Any] = np.asarray, **changes: Any) -> Any:
    arrays = (make(p.gradient), make(p.hessian), make(p.third))
    return proportional_step_sizes(*arrays, **{"damping": p.damping, **changes})


@pytest.mark.parametrize("kind", BOUNDED)
def test_groups_that_would_step_backward_stand_still(kind: str) -> None:
    """No step size is negative, and those that are left solve the model of their groups alone."""
    for seed in range(20):
        p = subproblem(kind, seed)
        eta, radius, status = none_negative(p)
        assert np.all(eta >= 0)
        assert np.isfinite(radius)
        free = solved(p)
        if np.all(free.eta >= 0):
            assert np.array_equal(eta, free.eta)
        (kept,) = np.nonzero(eta)
        if len(kept) == 0 or int(status) not in (NewtonStatus.MINIMISER, NewtonStatus.HARD_CASE):
            continue
        rest = Subproblem(p.gradient[kept], p.hessian[np.ix_(kept, kept)], p.third[kept], p.damping)
        assert residual(rest, eta[kept])[0] <= 1e-10


def alone(p: Subproblem, s: int) -> float:
    """Return the positive root of |H_ss| eta + damping/2 |T_s| eta^2 = g_s, 0 where there is none."""
    g, h, t = p.gradient[s], abs(p.hessian[s, s]), p.damping / 2 * abs(p.third[s])
    if g <= 0:
        return 0.0
    with mpmath.workdps(50):
        a, b = mpmath.mpf(t), mpmath.mpf(h)
        root = b + mpmath.sqrt(b * b + 4 * a * mpmath.mpf(g))
        return float(2 * g / root) if root > 0 else 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_proportions_are_those_of_each_group_alone(kind: str) -> None:
    """Ratios from the quadratic equation in 50 digits; no multiple of them has a lower value."""
    for seed in range(20):
        p = subproblem(kind, seed)
        eta, _, status = proportional(p)
        own = np.asarray([alone(p, s) for s in range(len(p.gradient))])
        assert np.all(eta >= 0)
        assert np.all(np.isfinite(eta))
        assert int(status) != NewtonStatus.FAILED, seed
        if not np.any(own):
            assert not np.any(eta)
            continue
        s = int(np.argmax(own))
        tau = eta[s] / own[s]
        assert tau > 0
        assert np.allclose(eta, tau * own, rtol=1e-12, atol=0)
        if int(status) != NewtonStatus.CONVEXIFIED:
            best = value(p, eta)
            assert best < 0
            assert min(value(p, factor * eta) for factor in (0.0, 0.5, 0.999, 1.001, 2.0, 100.0)) >= best * (1 + 1e-12)


def test_a_mean_with_proportional_step_sizes_descends_in_a_convex_model() -> None:
    for seed in range(20):
        p = subproblem("definite", seed)
        held, even = none_negative(p).eta, proportional(p).eta
        worse = max(value(p, held), value(p, even))
        assert value(p, 0.7 * held + 0.3 * even) <= worse + 1e-12 * abs(worse)
        assert worse <= 0


@pytest.mark.parametrize("solve", [none_negative, proportional])
@pytest.mark.parametrize("kind", ["definite", "indefinite", "graded", "some zero thirds"])
def test_step_sizes_that_are_not_negative_follow_units_and_order(solve: Callable[..., Any], kind: str) -> None:
    """Each group scaled over six decades, the loss by 1e-9, and the groups in another order."""
    for seed in range(10):
        p = subproblem(kind, 7000 + seed, size=6)
        rng = np.random.default_rng(seed)
        c, order, loss = 10.0 ** rng.uniform(-3, 3, 6), rng.permutation(6), 1e-9
        scaled = (c * p.gradient * loss, p.hessian * c[:, None] * c * loss, c**3 * p.third * loss)
        q = Subproblem(scaled[0][order], scaled[1][np.ix_(order, order)], scaled[2][order], p.damping)
        want = solve(p).eta
        assert np.max(np.abs(c[order] * solve(q).eta - want[order])) <= 1e-9 * np.max(want), seed


@pytest.mark.parametrize("exponent", [30, 300])
def test_extreme_numbers_stay_finite_without_negative_ones(exponent: int) -> None:
    big = 10.0**exponent
    for g in (1 / big, 1.0, big):
        for h in (0.0, 1 / big, big):
            for t in (0.0, 1 / big, big):
                H = h * np.asarray([[1, 0.5], [0.5, -1]])
                p = Subproblem(g * np.asarray([1.0, 2]), H, t * np.asarray([1.0, 2]), 1.0)
                for found in (none_negative(p), proportional(p)):
                    assert np.all(np.isfinite(found.eta))
                    assert np.all(found.eta >= 0)


def test_proportional_step_sizes_report_input_that_is_not_finite() -> None:
    found = proportional(Subproblem(np.asarray([1.0, math.nan]), np.eye(2), np.ones(2), 1.0))
    assert (found.eta.tolist(), int(found.status)) == ([0.0, 0.0], NewtonStatus.FAILED)


@pytest.mark.parametrize("solve", [none_negative, proportional])
@pytest.mark.parametrize("name", ["strict", "torch", "jax"])
def test_frameworks_agree_on_step_sizes_that_are_not_negative(name: str, solve: Callable[..., Any]) -> None:
    make, _ = FRAMEWORKS[name]()
    for seed in range(10):
        p = subproblem("definite", seed, 5)
        want, got = solve(p), solve(p, make)
        assert np.allclose(np.asarray(got.eta), want.eta, rtol=1e-9, atol=1e-12 * np.max(want.eta))
        assert int(got.status) == want.status


@pytest.mark.parametrize("solve", [none_negative, proportional])
def test_under_jit_the_same_groups_stand_still(solve: Callable[..., Any]) -> None:
    make, _ = jax_arrays()
    import jax

    loops = pytest.importorskip("inna_optax", reason="optax is not installed")
    compiled = jax.jit(lambda g, H, T: solve(Subproblem(g, H, T, 1.0), lambda x: x, loop=loops.while_loop))
    for seed in range(5):
        p = replace(subproblem("indefinite", seed, 5), damping=1.0)
        want = solve(p)
        got = compiled(make(p.gradient), make(p.hessian), make(p.third))
        assert np.allclose(got.eta, want.eta, rtol=1e-9, atol=1e-12 * np.max(want.eta))
