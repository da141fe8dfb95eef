"""What SciPy hands to a method and expects of it: derivatives, callbacks, options, results, refusals."""

import re
import warnings
from typing import Any

import numpy as np
import pytest

optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
from inna_scipy import inna  # noqa: E402

pytestmark = pytest.mark.fast

minimize, rosen, rosen_der = optimize.minimize, optimize.rosen, optimize.rosen_der
X0 = [-1.2, 1.0]


def solve(fun: Any = rosen, x0: Any = X0, jac: Any = rosen_der, **given: Any) -> Any:
    """Minimize with few iterations, unless `options` has maxiter."""
    return minimize(fun, x0, jac=jac, method=inna, **{**given, "options": {"maxiter": 5, **given.get("options", {})}})


def test_a_result_has_what_those_of_bfgs_have() -> None:
    result = solve(options={"return_all": True})
    bfgs = minimize(rosen, X0, jac=rosen_der, method="BFGS", options={"return_all": True})
    assert set(bfgs) - {"hess_inv"} <= set(result)
    for name in set(bfgs) - {"hess_inv"}:
        assert np.shape(result[name])[1:] == np.shape(bfgs[name])[1:]
        assert np.asarray(result[name]).dtype.kind == np.asarray(bfgs[name]).dtype.kind
    assert (result.fun, len(result.allvecs)) == (rosen(result.x), 6)
    np.testing.assert_array_equal(result.jac, rosen_der(result.x))
    np.testing.assert_array_equal(result.allvecs[-1], result.x)
    np.testing.assert_array_equal(result.allvecs[0], X0)


DERIVATIVES: dict[str, tuple[Any, Any]] = {
    "a function": (rosen, rosen_der),
    "True": (lambda x: (rosen(x), rosen_der(x)), True),
}


def test_value_and_gradient_may_come_from_one_function() -> None:
    apart, together = (solve(fun, jac=jac, options={"return_all": True}) for fun, jac in DERIVATIVES.values())
    np.testing.assert_array_equal(apart.allvecs, together.allvecs)
    assert (apart.nfev, apart.njev) == (together.nfev, together.njev)


@pytest.mark.parametrize("jac", [None, False, "2-point", "3-point"], ids=str)
def test_differences_take_the_place_of_the_gradient(jac: Any) -> None:
    calls = []

    def fun(x: np.ndarray) -> float:
        calls.append(x)
        return rosen(x)

    result = solve(fun, jac=jac, options={"maxiter": 10_000})
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-4)
    assert result.nfev == len(calls) > 3 * result.njev


def test_further_arguments_reach_function_and_gradient() -> None:
    result = solve(
        lambda x, a, b: a * (x - b) @ (x - b),
        jac=lambda x, a, b: 2 * a * (x - b),
        args=(3, 7),
        options={"maxiter": 500},
    )
    np.testing.assert_allclose(result.x, 7, atol=1e-7)
    one = solve(lambda x, b: (x - b) @ (x - b), jac=lambda x, b: 2 * (x - b), args=7, options={"maxiter": 500})
    np.testing.assert_allclose(one.x, 7, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"lr": 1e-4}], ids=["controlled", "fixed lr"])
def test_both_forms_of_callbacks_see_each_iterate(options: dict[str, Any]) -> None:
    iterates, results = [], []

    def of_x(xk: np.ndarray) -> None:
        iterates.append(xk.copy())
        xk[:] = np.nan  # it is a copy

    def of_result(intermediate_result: Any) -> None:
        results.append(intermediate_result)

    options = {**options, "return_all": True}
    first, second = (solve(callback=callback, options=options) for callback in (of_x, of_result))
    np.testing.assert_array_equal(iterates, first.allvecs[1:])
    np.testing.assert_array_equal([r.x for r in results], second.allvecs[1:])
    assert [r.fun for r in results] == [rosen(r.x) for r in results]


@pytest.mark.parametrize("form", ["xk", "intermediate_result"])
def test_a_callback_stops_the_iteration(form: str) -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StopIteration

    callback = {"xk": lambda xk: stop(), "intermediate_result": lambda intermediate_result: stop()}[form]
    result, bfgs = solve(callback=callback), minimize(rosen, X0, jac=rosen_der, method="BFGS", callback=_stop_at_once)
    assert (result.nit, result.status, result.success, result.message) == (3, 99, bfgs.success, bfgs.message)
    assert bfgs.status == 99


def _stop_at_once(xk: np.ndarray) -> None:
    raise StopIteration


def test_a_tolerance_is_that_of_the_gradient_unless_there_is_gtol() -> None:
    options = {"maxiter": 10_000}
    loose, tight = (solve(tol=tol, options=options) for tol in (1e-2, 1e-6))
    assert 1e-6 < np.abs(loose.jac).max() <= 1e-2
    assert np.abs(tight.jac).max() <= 1e-6
    assert np.abs(solve(tol=1e-2, options={**options, "gtol": 1e-6}).jac).max() <= 1e-6


def test_display_prints_what_bfgs_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for method in (inna, "BFGS"):
        minimize(rosen, [1.0, 1.0], jac=rosen_der, method=method, options={"disp": True})
    printed = capsys.readouterr().out
    half = len(printed) // 2
    assert printed[:half] == printed[half:]
    assert "Current function value: 0.000000" in printed
    with pytest.warns(optimize.OptimizeWarning, match="Maximum number of iterations"):
        solve(options={"disp": True})
    assert "Iterations: 5" in capsys.readouterr().out


UNUSED: dict[str, tuple[dict[str, Any], type[Warning], str]] = {
    "hess": ({"hess": optimize.rosen_hess}, RuntimeWarning, r"Method inna does not use Hessian information \(hess\)\."),
    "hessp": ({"hessp": optimize.rosen_hess_prod}, RuntimeWarning, "Hessian-vector product information"),
    "options": ({"options": {"xrtol": 1.0}}, optimize.OptimizeWarning, "Unknown solver options: xrtol"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_is_not_used_is_warned_about_at_the_callers_line(name: str) -> None:
    given, kind, message = UNUSED[name]
    options = {"maxiter": 2, **given.pop("options", {})} if "options" in given else {"maxiter": 2}
    with pytest.warns(kind, match=message) as caught:
        minimize(rosen, X0, jac=rosen_der, method=inna, options=options, **given)
    assert [warning.filename for warning in caught] == [__file__]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "constraints": ({"constraints": [{"type": "eq", "fun": rosen}]}, ValueError, "Invalid constraints"),
    "complex x0": ({"x0": [1j, 0]}, TypeError, "Invalid x0: dtype complex128"),
    "x0 of strings": ({"x0": ["a", "b"]}, TypeError, "Invalid x0: dtype <U1"),
    "too few bounds": ({"bounds": [(0, 1)]}, ValueError, "Invalid bounds: .*expected 2 pairs"),
    "bounds that are no pairs": ({"bounds": [(0, 1, 2), (0, 1)]}, ValueError, "Invalid bounds"),
    "bounds of numbers": ({"bounds": [0, 1]}, ValueError, r"Invalid bounds: \[0, 1\] \(expected 2 pairs"),
    "a number for bounds": ({"bounds": 3}, ValueError, "Invalid bounds: 3 "),
    "a number for a callback": ({"callback": 3}, TypeError, r"Invalid callback: 3 \(expected a function or None\)"),
    "crossed bounds": ({"bounds": [(0, 1), (1, 0)]}, ValueError, "expected lower bounds <= upper bounds"),
    "bounds of another length": ({"bounds": optimize.Bounds([0, 0, 0], 1)}, ValueError, r"bounds.lb: shape \(3,\)"),
    "an array for a value": ({"fun": lambda x: x}, ValueError, r"Invalid fun: returned an array of shape \(2,\)"),
    "a complex value": ({"fun": lambda x: 1j}, TypeError, "Invalid fun: returned 1j"),
    "a long gradient": ({"jac": lambda x: np.ones(3)}, ValueError, r"Invalid jac: returned shape \(3,\)"),
    "a complex gradient": ({"jac": lambda x: 1j * x}, TypeError, "Invalid jac: returned dtype complex128"),
    "lr 0": ({"options": {"lr": 0.0}}, ValueError, r"Invalid lr: 0\.0 "),
    "lr of a wrong type": ({"options": {"lr": "0.1"}}, TypeError, "Invalid lr: '0.1'"),
    "gtol": ({"options": {"gtol": -1.0}}, ValueError, r"Invalid gtol: -1\.0 "),
    "eps": ({"options": {"eps": 0.0}}, ValueError, r"Invalid eps: 0\.0 "),
    "maxiter": ({"options": {"maxiter": -1}}, ValueError, "Invalid maxiter: -1 "),
    "maxiter of a wrong type": ({"options": {"maxiter": 1.5}}, TypeError, r"Invalid maxiter: 1\.5 "),
    "momentum": ({"options": {"momentum": 1.0}}, ValueError, r"Invalid momentum: 1\.0 "),
    "alpha beside momentum": ({"options": {"momentum": 0.9, "alpha": 1.0}}, ValueError, r"Invalid alpha: 1\.0 "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name: str) -> None:
    given, error, message = BAD[name]
    with pytest.raises(error, match=message):
        solve(**given)


def test_a_gradient_that_scipy_would_have_replaced_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Invalid jac: '2-point' (expected a function or None")):
        inna(rosen, X0, jac="2-point")  # type: ignore[arg-type]


def raising(x: np.ndarray) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "given", [{"fun": raising}, {"jac": raising}, {"callback": raising}], ids=lambda x: next(iter(x))
)
def test_exceptions_of_the_users_functions_pass_through(given: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        solve(**given)


ENDS: dict[str, tuple[dict[str, Any], int, int]] = {
    "at the minimum already": ({"x0": [1.0, 1.0]}, 0, 0),
    "no iterations": ({"options": {"maxiter": 0}}, 1, 0),
    "maxiter": ({}, 1, 5),
    "a gradient uphill": ({"jac": lambda x: -rosen_der(x)}, 2, 0),
    "value not a number": ({"fun": lambda x: np.nan}, 3, 0),
    "gradient not a number": ({"jac": lambda x: np.nan * x}, 3, 0),
    "value not a number, fixed lr": ({"fun": lambda x: np.nan, "options": {"lr": 1e-4, "gtol": 1e9}}, 3, 0),
    "no variables": ({"fun": lambda x: 0.0, "jac": lambda x: x, "x0": []}, 0, 0),
}
"""By name: arguments, status, number of iterations."""


@pytest.mark.parametrize("name", ENDS)
def test_the_status_says_how_it_ended(name: str) -> None:
    given, status, nit = ENDS[name]
    result = solve(**given)
    assert (result.status, result.nit, result.success) == (status, nit, status == 0)


def test_a_diverging_run_ends_at_the_last_finite_gradient() -> None:
    with np.errstate(all="ignore"):
        result = solve(options={"lr": 1.0, "maxiter": 1000})
    assert (result.status, result.message) == (3, "NaN result encountered.")
    assert np.isfinite(result.x).all()
    assert np.isfinite(result.jac).all()


STARTS: dict[str, Any] = {
    "integers": [-1, 1],
    "float32": np.asarray([-1, 1], "float32"),
    "a tuple": (-1.0, 1.0),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts_are_converted_to_float64_and_left_unchanged(name: str) -> None:
    x0 = STARTS[name]
    before = np.array(x0)
    result = solve(x0=x0)
    assert result.x.dtype == np.float64
    np.testing.assert_array_equal(x0, before)
    np.testing.assert_array_equal(result.x, solve(x0=np.asarray([-1.0, 1.0])).x)


def test_a_number_is_one_variable() -> None:
    result = solve(lambda x: (x[0] - 2) ** 2, 0.0, lambda x: 2 * (x - 2), options={"maxiter": 500})
    np.testing.assert_allclose(result.x, [2.0], atol=1e-7)


def test_functions_may_overwrite_their_argument_and_reuse_their_result() -> None:
    kept = np.empty(2)

    def fun(x: np.ndarray) -> Any:
        value = rosen(x)
        x[:] = np.nan
        return np.asarray([value])

    def jac(x: np.ndarray) -> np.ndarray:
        kept[:] = rosen_der(x)
        x[:] = np.nan
        return kept

    np.testing.assert_array_equal(solve(fun, jac=jac).x, solve().x)


def test_basinhopping_takes_it_for_its_local_minimizer() -> None:
    found = optimize.basinhopping(
        rosen,
        X0,
        niter=2,
        minimizer_kwargs={"method": inna, "jac": rosen_der, "tol": 1e-6},
        rng=np.random.default_rng(0),
    )
    np.testing.assert_allclose(found.x, 1, atol=1e-5)


def test_no_warning_without_a_cause() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(constraints=(), bounds=None)
