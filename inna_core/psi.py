"""Conversion between the velocity v that this package stores and the phase variable psi of the papers.

    psi = (1 - alpha beta) theta - beta v            v = (1/beta - alpha) theta - psi / beta

Use it to continue a run whose checkpoint holds psi, or to hand a checkpoint to code that expects psi.

Reference: Castera et al., JMLR 22(134), 2021, algorithm INNA.
"""

from inna_core._validation import as_array, check_like, check_parameter, checked_number
from inna_core.algorithm import Array, Scalar


def psi_from_velocity(velocity: Array, theta: Array, *, alpha: Scalar, beta: Scalar) -> Array:
    """Return the paper's psi of a parameter and its velocity.

    Args:
        velocity: v, like theta in shape and dtype.
        theta: parameter, any shape, real or complex floating point.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.

    Returns:
        psi, like theta.

    Raises:
        ValueError, TypeError: as `INNA` and `INNA.update`.

    Example:
        >>> import numpy as np
        >>> psi_from_velocity(np.asarray([0.0]), np.asarray([2.0]), alpha=0.5, beta=0.1)
        array([1.9])
    """
    alpha, beta = checked_number("alpha", alpha), checked_number("beta", beta, positive=True)
    check_parameter(theta)
    check_like("velocity", velocity, theta)
    return as_array((1 - alpha * beta) * theta - beta * velocity)


def velocity_from_psi(psi: Array, theta: Array, *, alpha: Scalar, beta: Scalar) -> Array:
    """Return the velocity of a parameter and the paper's psi.

    Args:
        psi: phase variable, like theta in shape and dtype.
        theta: parameter, any shape, real or complex floating point.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.

    Returns:
        v, like theta.

    Raises:
        ValueError, TypeError: as `INNA` and `INNA.update`.

    Example:
        >>> import numpy as np
        >>> velocity_from_psi(np.asarray([1.5]), np.asarray([2.0]), alpha=0.5, beta=0.25)
        array([1.])
    """
    alpha, beta = checked_number("alpha", alpha), checked_number("beta", beta, positive=True)
    check_parameter(theta)
    check_like("psi", psi, theta)
    return as_array((1 / beta - alpha) * theta - psi / beta)
