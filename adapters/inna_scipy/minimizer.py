"""INNA as a custom method of `scipy.optimize.minimize`."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, OptimizeWarning

from inna_core._validation import checked_count, checked_number
from inna_core.inna import INNA
from inna_scipy._problem import Array, Box, Objective
from inna_scipy._steps import Iterate, stepper

MOMENTUM = 0.99
"""Momentum where the learning rate is controlled; restarts make smaller ones unnecessary."""

GTOL = {False: 1e-7, True: 1e-5}
"""Default of `gtol`, by whether gradients are finite differences, whose errors are about 1e-8 times the curvature.

BFGS has 1e-5 and ends far below it, since it converges superlinearly. INNA converges linearly and ends just below.
"""

MESSAGES = {
    0: "Optimization terminated successfully.",
    1: "Maximum number of iterations has been exceeded.",
    2: "Desired error not necessarily achieved due to precision loss.",
    3: "NaN result encountered.",
    99: "`callback` raised `StopIteration`.",
}
"""By status, as SciPy's own methods have them."""


def inna(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    jac: Callable[..., Any] | None = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    *,
    lr: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    momentum: float | None = None,
    lead: float | None = None,
    gtol: float | None = None,
    tol: float | None = None,
    maxiter: int = 10_000,
    eps: float = 1.4901161193847656e-08,
    disp: bool = False,
    return_all: bool = False,
    **unknown_options: Any,
) -> OptimizeResult:
    """Minimize a function of one or more variables with INNA.

    Pass it to SciPy as ``minimize(fun, x0, jac=..., method=inna_scipy.inna, options={...})``; the keyword arguments are
    options, and `minimize` documents the others. All computations are in float64.

    Without `lr`, the learning rate is set by the energy of the dynamics, and steps that raise it are rejected. With
    `lr`, the steps are INNA's own, as in the paper, and the objective is evaluated only for the result and for
    callbacks that ask for it.

    Args:
        fun: the objective, ``fun(x, *args) -> float``.
        x0: initial guess, real, of shape (n,).
        args: further arguments of `fun` and `jac`.
        jac: the gradient, ``jac(x, *args) -> array of shape (n,)``, or None for forward differences (SciPy replaces
            names like "3-point" by None before it calls a custom method).
        hess, hessp: not used.
        bounds: `scipy.optimize.Bounds` or pairs; every iterate and every evaluation stays within them.
        constraints: must be empty.
        callback: called after each iteration as ``callback(xk)``, or as ``callback(intermediate_result=...)`` if that
            is its only parameter. It may raise StopIteration.
        lr: learning rate, > 0; None to have it controlled.
        alpha: viscous damping, >= 0, as `inna_core.INNA`.
        beta: Newtonian damping, > 0.
        momentum: in [0, 1), in place of alpha and beta (default 0.99 where neither these nor `lr` are given).
        lead: > 0, Newtonian damping in units of the time step (default 1 + momentum).
        gtol: the iteration ends when no element of the gradient exceeds it in magnitude; with bounds, of the projected
            gradient (default 1e-7, without `jac` 1e-5).
        tol: `minimize` passes its argument `tol` on under this name; used as `gtol` where that is None.
        maxiter: largest number of iterations.
        eps: step of the forward differences.
        disp: whether to print a summary, and to warn if the minimization fails.
        return_all: whether the result has all iterates, as ``allvecs``.

    Returns:
        `scipy.optimize.OptimizeResult` with ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``status``,
        ``success``, ``message``, and ``lr``, that of the next step; with `return_all` also ``allvecs``. The status is
        0 for success, 1 where `maxiter` is reached, 2 where rounding errors allow no further step, 3 where a value or
        a gradient is not finite (``x`` is the last point with a finite gradient), and 99 where the callback stopped.

    Raises:
        ValueError, TypeError: if an argument is out of range, or `x0`, `fun` or `jac` have a wrong shape or are
            complex. Exceptions of `fun`, `jac` and `callback` pass through.

    Reference: Castera et al., JMLR 22(134), 2021; the control of the learning rate is described in `inna_scipy._steps`.

    Example:
        >>> from scipy.optimize import minimize, rosen, rosen_der
        >>> result = minimize(rosen, [1.3, 0.7, 0.8, 1.9, 1.2], jac=rosen_der, method=inna, tol=1e-6)
        >>> result.message
        'Optimization terminated successfully.'
        >>> result.x.round(5)
        array([1., 1., 1., 1., 1.])
    """
    warn_of_unused(hess, hessp, unknown_options)
    if np.any(constraints):
        raise ValueError(f"Invalid constraints: {constraints!r} (expected none; INNA takes bounds only)")
    if jac is not None and not callable(jac):
        raise ValueError(f"Invalid jac: {jac!r} (expected a function or None; `minimize` takes others)")
    lr = None if lr is None else checked_number("lr", lr, positive=True)
    gtol = checked_number("gtol", next(value for value in (gtol, tol, GTOL[jac is None]) if value is not None))
    maxiter, eps = checked_count("maxiter", maxiter, least=0), checked_number("eps", eps, positive=True)
    if lr is None and alpha is None and beta is None and momentum is None:
        momentum = MOMENTUM
    algorithm = INNA(alpha, beta, momentum, lead)
    x = initial(x0)
    box = Box(bounds, x.size)
    x = box.projected(x)
    objective = Objective(fun, jac, args, eps, box.upper)
    notify = notifier(callback, objective)

    now = Iterate(x, None if lr else objective.value(x), objective.gradient(x), algorithm.init(x), 0.0)
    all_x, nit, status, step = [np.copy(x)], 0, None, None
    if not (is_finite(now.grad) and is_finite(now.fun)):
        status = 3
    while status is None:
        if np.abs(box.projected_gradient(now.x, now.grad)).max(initial=0.0) <= gtol:
            status = 0
        elif nit >= maxiter:
            status = 1
        else:
            if step is None:
                step, first = stepper(algorithm, objective, box, now.x, now.grad, lr)
                now = now._replace(lr=first)
            after = step(now)
            if after is None:
                status = 2
            elif not is_finite(after.grad):
                status = 3
            else:
                now, nit = after, nit + 1
                if return_all:
                    all_x.append(np.copy(now.x))
                status = 99 if notify(now) else None

    value = objective.value(now.x) if now.fun is None else now.fun
    if status == 0 and not np.isfinite(value):
        status = 3
    result = OptimizeResult(
        x=now.x,
        fun=value,
        jac=now.grad,
        nit=nit,
        nfev=objective.nfev,
        njev=objective.njev,
        status=status,
        success=status == 0,
        message=MESSAGES[status],
        lr=now.lr,
        **({"allvecs": all_x} if return_all else {}),
    )
    if disp:
        show(result)
    return result


def is_finite(values: Any) -> bool:
    """Return whether all numbers are finite; None, a value that was not computed, counts as finite."""
    return values is None or bool(np.isfinite(values).all())


def initial(x0: Any) -> Array:
    """Return the initial guess as a float64 array of its own."""
    given = np.atleast_1d(np.asarray(x0))
    if given.dtype.kind not in "fiub":
        raise TypeError(f"Invalid x0: dtype {given.dtype} (expected a real dtype)")
    if given.ndim != 1:
        raise ValueError(f"Invalid x0: shape {given.shape} (expected one dimension)")
    return np.array(given, dtype=float)


def warn_of_unused(hess: Any, hessp: Any, unknown_options: dict[str, Any]) -> None:
    """Warn as SciPy's own methods do, with a stack level that points to the call of `minimize`."""
    unused = {"Hessian information (hess)": hess, "Hessian-vector product information (hessp)": hessp}
    for name, value in unused.items():
        if value is not None:
            warnings.warn(f"Method inna does not use {name}.", RuntimeWarning, stacklevel=4)
    if unknown_options:
        names = ", ".join(unknown_options)
        warnings.warn(f"Unknown solver options: {names}", OptimizeWarning, stacklevel=4)


def notifier(callback: Callable[..., Any] | None, objective: Objective) -> Callable[[Iterate], bool]:
    """Return a function that calls the callback with what it takes, and returns whether it raised StopIteration."""
    if callback is None:
        return lambda now: False
    if not callable(callback):
        raise TypeError(f"Invalid callback: {callback!r} (expected a function or None)")
    try:
        takes_result = set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):  # some built-in functions have no signature
        takes_result = False

    def notify(now: Iterate) -> bool:
        call = partial(callback, np.copy(now.x))
        if takes_result:
            value = objective.value(now.x) if now.fun is None else now.fun
            call = partial(callback, intermediate_result=OptimizeResult(x=np.copy(now.x), fun=value))
        try:
            call()
        except StopIteration:
            return True
        return False

    return notify


def show(result: OptimizeResult) -> None:
    """Print what SciPy's own methods print."""
    if result.success:
        print(result.message)
    else:
        warnings.warn(result.message, OptimizeWarning, stacklevel=4)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")
