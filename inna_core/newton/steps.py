"""What a step of summary-Newton does to one parameter: equations (1) and (3) of `inna_core.newton.controller`."""

from typing import Any

from inna_core.algorithm import Array, Namespace, Scalar

LEAST_RMS = 1e-3
"""Lower bound of a parameter's root mean square in equation (3)."""


def direction(algorithm: Any, grad: Array, state: Any, theta: Array, xp: Namespace | None = None) -> Array:
    """Return u, the algorithm's step of size 1 with the sign changed; see `inna_core.newton.controller`."""
    delta, _ = algorithm.update(grad, state, theta, 1.0, xp)
    return -delta


def root_mean_square(x: Array, xp: Namespace) -> Array:
    """Return the root mean square as a 0-d array, without overflow in the squares."""
    scale = xp.max(xp.abs(x))
    scaled = x / xp.where(scale > 0, scale, xp.ones_like(scale))
    return scale * xp.sqrt(xp.mean(scaled * scaled))


def trusted_step(step: Scalar, u: Array, theta: Array, trust: float, xp: Namespace) -> Any:
    """Return a step size with its magnitude limited by equation (3).

    Args:
        step: lambda_1 eta_s, a float or a 0-d array of theta's dtype.
        u: direction, like theta.
        theta: parameter.
        trust: r > 0; infinity returns the step size as it is.
        xp: array namespace.
    """
    if trust == float("inf") or 0 in u.shape:
        return step
    size = root_mean_square(theta, xp)
    size = xp.where(size > LEAST_RMS, size, xp.full_like(size, LEAST_RMS))
    length = root_mean_square(u, xp)
    bound = trust * size / xp.where(length > 0, length, xp.ones_like(length))  # if u is 0, no step moves theta
    if isinstance(step, float):
        return max(-float(bound), min(step, float(bound)))
    return xp.where(step > bound, bound, xp.where(step < -bound, -bound, step))


def next_state(
    algorithm: Any, grad: Array, state: Any, theta: Array, step: Scalar, velocity_cap: float, xp: Namespace
) -> Any:
    """Return the algorithm's state after a step of a size lambda_1 eta_s, capped at velocity_cap beta, equation (1).

    Args:
        algorithm: as in `inna_core`; one without ``beta`` has no cap.
        grad: gradient, like theta.
        state: the algorithm's.
        theta: parameter.
        step: lambda_1 eta_s >= 0, a float or a 0-d array of theta's dtype.
        velocity_cap: c.
        xp: array namespace.
    """
    beta = getattr(algorithm, "beta", None)
    if beta is not None:
        cap = velocity_cap * beta
        step = min(step, cap) if isinstance(step, float) else xp.where(step < cap, step, cap)
    return algorithm.update(grad, state, theta, step, xp)[1]
