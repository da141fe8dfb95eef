"""Summary-Newton: one step size per group of parameters from second and third derivatives along a given direction.

The parameters theta are split into S groups, and a fixed direction u (a gradient, or minus the step of an optimizer)
into the same groups. Along phi(mu) = L(theta + sum_s mu_s u_s) the loss has the summary, at mu = 0,

    g_s = d phi / d mu_s        H_st = d^2 phi / d mu_s d mu_t        T_s = d^3 phi / d mu_s^3

and the step theta_s <- theta_s - lambda_1 eta_s u_s takes the step sizes eta that minimise

    -g^T eta + 1/2 eta^T H eta + lambda/6 |D eta|^3,        D = diag(d),  d_s = |T_s|^(1/3)                 (1)

A global minimiser is an eta for which some r satisfies, M(r) being positive semidefinite,

    M(r) eta = g,        M(r) = H + 1/2 lambda r D^2,        r = |D eta|                                      (2)

| symbol   | meaning                                          | range       | name in code     |
|----------|--------------------------------------------------|-------------|------------------|
| g, H, T  | summary of the loss along the direction          |             | ``Summary``      |
| lambda   | lambda_int, weight of the third derivatives      | >= 0        | ``damping``      |
| eta      | step sizes; positive ones descend                |             | ``eta``          |
| r        | radius \\|D eta\\|                                 | >= 0        | ``radius``       |

How (2) is solved: `inna_core.newton.cubic_solver`. What happens between two summaries: `inna_core.newton.controller`.

Reference: P. Wolinski. Gathering and Exploiting Higher-Order Information when Training Large Structured Models.
arXiv 2312.03885 (ECML PKDD 2025). The cubic model is that of Y. Nesterov, B. Polyak. Cubic regularization of Newton
method and its global performance. Mathematical Programming 108, 2006.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from inna_core._validation import checked_number, is_real_floating
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.newton.cubic_solver import Loop, convexify, minimiser, python_loop
from inna_core.newton.summary import Summary
from inna_core.newton.units import nondimensionalised, norm, ratio, restore_units


class NewtonStatus(IntEnum):
    """What `newton_step_sizes` found.

    Attributes:
        MINIMISER: the global minimiser.
        HARD_CASE: one of two global minimisers, which differ in the sign along a direction of negative curvature.
        CONVEXIFIED: the model has no (single) minimiser; the minimiser of the model with |H| in place of H.
        FAILED: the input was not finite, or rounding left no accurate solution; the step sizes are still finite.
    """

    MINIMISER = 0
    HARD_CASE = 1
    CONVEXIFIED = 2
    FAILED = 3


class NewtonStepSizes(NamedTuple):
    """Result of `newton_step_sizes`.

    Attributes:
        eta: step sizes, shape (S,), always finite.
        radius: r = |D eta|, 0-d.
        status: a value of `NewtonStatus`, 0-d integer array.
    """

    eta: Array
    radius: Array
    status: Array


def newton_step_sizes(
    gradient: Array,
    hessian: Array,
    third: Array,
    *,
    damping: Scalar,
    third_floor: float = 0.0,
    loop: Loop | None = None,
) -> NewtonStepSizes:
    """Return the step sizes that minimise -g^T eta + 1/2 eta^T H eta + damping/6 |D eta|^3.

    Computed in float64 where the framework has it, without callbacks, so that it works under ``jax.jit``. The default
    loop is unrolled there; pass `loop` for a smaller program. The result is the same.

    Of two equal minimisers (`NewtonStatus.HARD_CASE`) the one with the larger sum of step sizes is returned, each in
    units of its group's curvature. An uninformative group (zero row of H, T = 0) gets the step size 0.

    Args:
        gradient: g, shape (S,), real floating point, S >= 1.
        hessian: H, shape (S, S); its symmetric part is used.
        third: T, shape (S,); only |T| matters.
        damping: lambda_int >= 0, a float or a 0-d array; 0 is plain Newton in R^S.
        third_floor: kappa >= 0; raises |T_s| to at least kappa H_ss^2 / |g_s|, which keeps a step size below about
            sqrt(2 / (kappa damping)) times its own Newton step |g_s / H_ss|. 0 (default) is the published method.
        loop: called as ``loop(body, state, rounds)``, returns the state after applying ``body: state -> state`` until
            its last entry, a flag, is true, `rounds` times at most (default: a Python loop). The state is a tuple of
            arrays whose shapes and dtypes stay. Under jit: ``inna_optax.while_loop``.

    Returns:
        Step sizes and radius in the gradient's dtype, and the status.

    Raises:
        ValueError: if a shape does not fit, or damping or third_floor is negative or not finite.
        TypeError: if an argument is not a real floating-point array, or the frameworks or dtypes differ.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import numpy as np
        >>> g, H, T = np.asarray([98, 42.25]), np.asarray([[441, 136.5], [136.5, 126.75]]), np.asarray([0, 274.625])
        >>> result = newton_step_sizes(g, H, T, damping=1.0)
        >>> result.eta.round(9).tolist(), round(float(result.radius), 9), NewtonStatus(int(result.status)).name
        ([0.185609145, 0.118288403], 0.768874621, 'MINIMISER')
    """
    damping = checked_number("damping", damping)
    third_floor = checked_number("third_floor", third_floor)
    xp = _check_summary(gradient, hessian, third)
    g, H, T, damping, finite = _widened(xp, gradient, hessian, third, damping)
    T = _with_floor(xp, g, H, xp.abs(T), third_floor)
    model, units = nondimensionalised(xp, g, (H + H.T) / 2, damping * T)
    model, convexified, least, uninformative = convexify(xp, model)
    y, hard, accurate = minimiser(xp, model, least, python_loop if loop is None else loop)
    y = xp.where(uninformative, xp.zeros_like(y), y)
    eta, fits = restore_units(xp, y, units, xp.finfo(gradient.dtype).max ** 0.5)
    status = xp.astype(hard, xp.int32) * int(NewtonStatus.HARD_CASE)
    status = xp.where(convexified, xp.full_like(status, int(NewtonStatus.CONVEXIFIED)), status)
    return _result(xp, gradient, eta, T, finite, status, accurate & fits)


Solver = Callable[[Array, Array, Array], NewtonStepSizes]
"""`newton_step_sizes` as a function of (g, H, T), its other arguments bound."""


def nonnegative_step_sizes(summary: Summary, solve: Solver, loop: Loop | None = None) -> NewtonStepSizes:
    """Return step sizes none of which is negative: groups that would step backward stand still.

    A negative step size moves against the descent direction. Setting it to 0 afterwards would leave the other groups
    with steps that rely on it and, where groups oppose each other, are far too long. Instead such groups are taken out
    of the model and the rest is minimised again, until no step size is negative (after at most S rounds).

    Args:
        summary: g, H and T.
        solve: maps g, H and T to the minimiser of the model, as `newton_step_sizes` does.
        loop: see `newton_step_sizes`.

    Returns:
        The result of the last round, with eta >= 0.

    Raises:
        ValueError, TypeError: as `newton_step_sizes`.

    Example:
        >>> import functools, numpy as np
        >>> solve = functools.partial(newton_step_sizes, damping=1.0)
        >>> along = Summary(np.asarray([1.0, 1.0]), np.asarray([[1.0, 1.5], [1.5, 3.0]]), np.zeros(2))
        >>> solve(*along).eta.round(9).tolist()
        [2.0, -0.666666667]
        >>> nonnegative_step_sizes(along, solve).eta.round(9).tolist()
        [1.0, 0.0]
    """
    xp = _check_summary(*summary)
    gradient, hessian, third = summary

    def drop_negative(state: tuple[Array, ...]) -> tuple[Array, ...]:
        kept = state[0]
        # an uninformative group gets the step size 0
        g, T = (xp.where(kept, x, xp.zeros_like(x)) for x in (gradient, third))
        H = xp.where(kept[:, None] & kept[None, :], hessian, xp.zeros_like(hessian))
        eta, radius, status = solve(g, H, T)
        backward = eta < 0
        return kept & ~backward, eta, radius, status, ~xp.any(backward)

    kept = xp.ones_like(gradient, dtype=xp.bool)
    zero = xp.zeros_like(gradient[0])
    state = (kept, xp.zeros_like(gradient), zero, xp.astype(zero, xp.int32), xp.any(~kept))
    _, eta, radius, status, _ = (python_loop if loop is None else loop)(drop_negative, state, gradient.shape[0])
    # the last remaining group may still be negative
    return NewtonStepSizes(xp.where(eta > 0, eta, xp.zeros_like(eta)), radius, status)


def proportional_step_sizes(
    gradient: Array,
    hessian: Array,
    third: Array,
    *,
    damping: Scalar,
    third_floor: float = 0.0,
    loop: Loop | None = None,
) -> NewtonStepSizes:
    """Return the best step sizes in fixed proportions: those that every group would take on its own.

    A group on its own takes the positive root of |H_ss| eta + damping/2 |T_s| eta^2 = g_s. Together these steps would
    go too far where groups act alike, so all are multiplied by the one factor that minimises the model. Every group
    with g_s > 0 (its direction descends) moves; the others stand still.

    Args:
        gradient, hessian, third, damping, third_floor, loop: see `newton_step_sizes`.

    Returns:
        Step sizes >= 0, their radius, and the status of the problem in one unknown that finds the factor.

    Raises:
        ValueError, TypeError: as `newton_step_sizes`.

    Example:
        >>> import numpy as np
        >>> g, H, T = np.asarray([1.0, 1.0]), np.asarray([[1.0, 1.5], [1.5, 3.0]]), np.zeros(2)
        >>> proportional_step_sizes(g, H, T, damping=1.0).eta.round(9).tolist()  # 1 and 1/3, times 4/7
        [0.571428571, 0.19047619]
    """
    damping, third_floor = checked_number("damping", damping), checked_number("third_floor", third_floor)
    xp = _check_summary(gradient, hessian, third)
    g, H, T, damping, finite = _widened(xp, gradient, hessian, third, damping)
    T = _with_floor(xp, g, H, xp.abs(T), third_floor)
    (g, H, d), units = nondimensionalised(xp, g, (H + H.T) / 2, damping * T)
    descent, h, cubic = xp.clip(g, min=0.0), xp.abs(xp.linalg.diagonal(H)), xp.clip(d, max=1e100) ** 3
    own = ratio(xp, 2 * descent, h + xp.sqrt(h * h + 2 * cubic * descent))
    # the model along the line y = tau own is one of a single group
    line = (xp.sum(g * own)[None], (own @ H @ own)[None, None], (norm(xp, d * own) ** 3)[None])
    tau, _, status = newton_step_sizes(*line, damping=1.0, loop=loop)
    eta, fits = restore_units(xp, xp.clip(tau, min=0.0) * own, units, xp.finfo(gradient.dtype).max ** 0.5)
    return _result(xp, gradient, eta, T, finite, status, fits)


def _check_summary(gradient: Array, hessian: Array, third: Array) -> Namespace:
    arrays = {"gradient": gradient, "hessian": hessian, "third": third}
    for name, array in arrays.items():
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise TypeError(f"Invalid {name}: {array!r} (expected an array)")
        if not is_real_floating(array):
            raise TypeError(f"Invalid {name}: dtype {array.dtype} (expected a real floating-point dtype)")
        if array.dtype != gradient.dtype:
            raise TypeError(f"Invalid {name}: dtype {array.dtype} (expected the gradient's, {gradient.dtype})")
    if len(gradient.shape) != 1 or gradient.shape[0] == 0:
        raise ValueError(f"Invalid gradient: shape {tuple(gradient.shape)} (expected (S,) with S >= 1)")
    (size,) = gradient.shape
    for name, array, shape in (("hessian", hessian, (size, size)), ("third", third, (size,))):
        if tuple(array.shape) != shape:
            raise ValueError(f"Invalid {name}: shape {tuple(array.shape)} (expected {shape})")
    return array_namespace(gradient, hessian, third)


def _widest(xp: Namespace, array: Array) -> Any:
    """Return float64, or float32 where the framework is set to have nothing wider (JAX by default)."""
    wide = xp.__array_namespace_info__().dtypes(kind="real floating")
    return wide.get("float64", wide["float32"])


def _widened(
    xp: Namespace, gradient: Array, hessian: Array, third: Array, damping: Scalar
) -> tuple[Array, Array, Array, Array, Array]:
    """Return g, H, T and damping in the widest dtype, zeros for what is not finite, and whether all was finite."""
    dtype = _widest(xp, gradient)
    damping = xp.asarray(damping, dtype=dtype) if isinstance(damping, float) else xp.astype(damping, dtype)
    arrays = [*(xp.astype(x, dtype) for x in (gradient, hessian, third)), damping]
    good = [xp.isfinite(x) for x in arrays]
    finite = xp.all(good[0]) & xp.all(good[1]) & xp.all(good[2]) & good[3]
    g, H, T, damping = (xp.where(ok, x, xp.zeros_like(x)) for ok, x in zip(good, arrays, strict=True))
    return g, H, T, damping, finite


def _result(
    xp: Namespace, gradient: Array, eta: Array, T: Array, finite: Array, status: Array, accurate: Array
) -> NewtonStepSizes:
    """Return step sizes and radius in the gradient's dtype, zeros where the input was not finite, and the status."""
    status = xp.where(finite & accurate, status, xp.full_like(status, int(NewtonStatus.FAILED)))
    eta, radius = (xp.where(finite, x, xp.zeros_like(x)) for x in (eta, norm(xp, xp.pow(T, 1 / 3) * eta)))
    return NewtonStepSizes(xp.astype(eta, gradient.dtype), xp.astype(radius, gradient.dtype), status)


def _with_floor(xp: Namespace, g: Array, H: Array, T: Array, third_floor: float) -> Array:
    if third_floor == 0.0:
        return T
    h = xp.abs(xp.linalg.diagonal(H))
    return xp.maximum(T, xp.clip(third_floor * h * ratio(xp, h, xp.abs(g)), max=xp.finfo(T.dtype).max))
