"""Minima: of SciPy's own example, of test functions, and on bounds, without a learning rate and with one."""

from functools import cache
from typing import Any

import numpy as np
import pytest

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
pytest.importorskip("sklearn", reason="scikit-learn, which ships the data, is not installed")
from benchmarks.scipy_methods import GTOL, PROBLEMS, Problem, Run, solve  # noqa: E402
from inna_scipy import inna  # noqa: E402

minimize, rosen, rosen_der = optimize.minimize, optimize.rosen, optimize.rosen_der

STARTS = ([-1.2, 1.0], [1.3, 0.7, 0.8, 1.9, 1.2])


@pytest.mark.fast
@pytest.mark.parametrize("x0", STARTS, ids=len)
def test_rosenbrock_is_solved_with_default_options(x0: list[float]) -> None:
    found = minimize(rosen, x0, jac=rosen_der, method=inna)
    assert found.success
    assert np.abs(found.x - 1).max() <= 1e-6
    assert 0 <= found.fun <= 1e-12


@cache
def by_inna(problem: Problem) -> Run:
    return solve(problem, inna)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_functions_are_minimized_without_a_learning_rate(problem: Problem) -> None:
    """To a value as low as that of BFGS, and with the evaluations that the result tells."""
    run = by_inna(problem)
    assert run.reached
    assert run.result.success
    assert (run.result.nfev, run.result.njev) == (run.nfev, run.njev)
    best = minimize(problem.fun, problem.x0, jac=problem.jac, method="BFGS", options={"gtol": GTOL})
    assert run.result.fun <= best.fun + 1e-8


@pytest.mark.parametrize("name", ["Rosenbrock, 100-D", "quadratic, 100-D, condition 1e4"])
def test_large_problems_take_no_more_evaluations_than_conjugate_gradients(name: str) -> None:
    (problem,) = (problem for problem in PROBLEMS if problem.name == name)
    assert by_inna(problem).nfev <= solve(problem, "CG").nfev


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("quantity", ["fun", "x"])
def test_units_of_the_objective_and_of_x_matter_little(quantity: str, scale: float) -> None:
    of_fun, of_x = (scale, 1.0) if quantity == "fun" else (1.0, scale)
    found = minimize(
        lambda x: of_fun * rosen(x / of_x),
        of_x * np.asarray(STARTS[0]),
        jac=lambda x: of_fun / of_x * rosen_der(x / of_x),
        method=inna,
        options={"gtol": 1e-7 * of_fun / of_x},
    )
    assert found.success
    np.testing.assert_allclose(found.x / of_x, 1, atol=1e-6)


def box_problem(seed: int) -> tuple[Any, Any, np.ndarray, list[Any]]:
    """Return a convex quadratic in 12 variables that are coupled, with bounds of each kind."""
    rng = np.random.default_rng(seed)
    factor, target = rng.standard_normal((20, 12)), 2 * rng.standard_normal(20)
    bounds: list[Any] = [(-0.1, 0.2)] * 4 + [(None, 0.1)] * 3 + [(-0.1, None)] * 3 + [(None, None), (0.3, 0.3)]
    return (
        lambda x: 0.5 * np.sum((factor @ x - target) ** 2),
        lambda x: factor.T @ (factor @ x - target),
        np.zeros(12),
        bounds,
    )


CONTROL: dict[str, dict[str, float]] = {"controlled": {}, "fixed lr": {"lr": 0.005, "momentum": 0.9}}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("control", CONTROL)
def test_bounded_minima_are_those_of_lbfgsb(control: str, seed: int) -> None:
    fun, jac, x0, bounds = box_problem(seed)
    found = minimize(fun, x0, jac=jac, method=inna, bounds=bounds, options={"gtol": 1e-9, **CONTROL[control]})
    assert found.success
    want = minimize(fun, x0, jac=jac, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-10, "ftol": 0})
    np.testing.assert_allclose(found.x, want.x, atol=1e-7)
    # some variables end on a bound, exactly, and some between
    on_bound = [x in pair for x, pair in zip(found.x, bounds, strict=True)]
    assert 2 <= sum(on_bound) <= 11


@pytest.mark.fast
@pytest.mark.parametrize("control", CONTROL)
def test_a_separable_function_has_its_minimum_at_the_nearest_point_of_the_box(control: str) -> None:
    center, curvatures = np.linspace(-2, 2, 9), np.logspace(0, 2, 9)
    bounds = optimize.Bounds(-1, np.linspace(0, 3, 9))
    found = minimize(
        lambda x: 0.5 * np.sum(curvatures * (x - center) ** 2),
        np.full(9, 7.0),
        jac=lambda x: curvatures * (x - center),
        method=inna,
        bounds=bounds,
        options={"gtol": 1e-10, **CONTROL[control]},
    )
    assert found.success
    want = np.clip(center, bounds.lb, bounds.ub)
    np.testing.assert_allclose(found.x, want, atol=1e-9)
    on_bound = want != center
    np.testing.assert_array_equal(found.x[on_bound], want[on_bound])


@pytest.mark.parametrize("jac", [rosen_der, None], ids=["jac", "differences"])
def test_bounded_rosenbrock_never_leaves_the_box(jac: Any) -> None:
    """Nor do the probes for the first learning rate and the points of differences."""
    bounds, points = [(-1.5, 0.8), (None, 0.5)], []

    def fun(x: np.ndarray) -> float:
        points.append(x)
        return rosen(x)

    def watched(x: np.ndarray) -> Any:
        points.append(x)
        return jac(x)

    found = minimize(fun, [-1.2, 0.5], jac=None if jac is None else watched, method=inna, bounds=bounds, tol=1e-6)
    assert found.success
    assert all(-1.5 <= x[0] <= 0.8 and x[1] <= 0.5 for x in points)
    want = minimize(rosen, [0.6, 0.4], jac=rosen_der, method="L-BFGS-B", bounds=bounds, options={"ftol": 0})
    np.testing.assert_allclose(found.x, want.x, atol=1e-5)
    assert found.x[1] == 0.5


def test_steps_into_places_without_a_finite_value_are_rejected() -> None:
    """The logarithm is not defined below 0, and a long step would go there."""

    def fun(x: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            return float(np.sum(x - np.log(x)))

    found = minimize(fun, [1e-3, 30.0], jac=lambda x: 1 - 1 / x, method=inna)
    assert found.success
    np.testing.assert_allclose(found.x, 1, atol=1e-6)


@pytest.mark.fast
def test_a_sharpness_at_the_start_that_misleads_is_corrected() -> None:
    """At x = 50 the curvature of exp is 1e21 times that at the minimum: a step for it would not change x there."""
    found = minimize(lambda x: np.sum(np.exp(x) - 3 * x), [50.0], jac=lambda x: np.exp(x) - 3, method=inna)
    assert found.success
    np.testing.assert_allclose(found.x, np.log(3), atol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("offset", [1e3, 1e8])
def test_rounding_errors_of_a_large_objective_do_not_stop_it(offset: float) -> None:
    found = minimize(lambda x: offset + rosen(x), STARTS[0], jac=rosen_der, method=inna)
    assert found.success
    assert np.abs(found.x - 1).max() <= 1e-6
