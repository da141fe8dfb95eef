"""What is known about the dynamics of INNA: its energy and the step sizes for which it is stable.

On a quadratic with curvature h > 0 one step of INNA is linear in (theta, v),

    theta <- (1 - gamma beta h) theta + gamma v
    v     <- - gamma (1 - alpha beta) h theta + (1 - alpha gamma) v

and both eigenvalues lie inside the unit circle (Schur-Cohn) iff h gamma (2 beta - gamma) < 4 - 2 alpha gamma and
h (gamma - beta) < alpha.

Reference: Castera et al., JMLR 22(134), 2021, section 3 (energy); the stability limits follow from the matrix above.
"""

import math
from collections.abc import Iterable

from array_api_compat import array_namespace

from inna_core._validation import checked_number, squared_modulus
from inna_core.algorithm import Array, Scalar


def energy(loss: Scalar, velocity: Iterable[Array], *, alpha: float, beta: float) -> Scalar:
    """Return the energy E = 2 (1 + alpha beta) J(theta) + |v|^2, which never grows along the continuous dynamics.

    Args:
        loss: J(theta), a number or a 0-d array.
        velocity: the velocities of all parameters, one array each, in the loss' framework.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.

    Returns:
        E, like the loss.

    Raises:
        ValueError, TypeError: if alpha or beta is not a number in its range.

    Reference: Castera et al., JMLR 22(134), 2021, section 3.

    Example:
        >>> import numpy as np
        >>> float(energy(1.0, [np.asarray([3.0, 4.0])], alpha=0.5, beta=0.1))
        27.1
    """
    alpha, beta = checked_number("alpha", alpha), checked_number("beta", beta, positive=True)
    total = 2 * (1 + alpha * beta) * loss
    for v in velocity:
        xp = array_namespace(v)
        total = total + xp.sum(squared_modulus(v, xp))
    return total


def largest_stable_lr(sharpness: float, *, alpha: float, beta: float) -> float:
    """Return the supremum of the step sizes below which INNA is stable for every curvature in (0, sharpness].

    Args:
        sharpness: largest eigenvalue of the Hessian, > 0.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.

    Returns:
        The largest step size, in units of time like 1/alpha and beta.

    Raises:
        ValueError, TypeError: if an argument is not a number in its range.

    Example:
        >>> round(largest_stable_lr(100.0, alpha=0.5, beta=0.1), 6)
        0.105
    """
    h = checked_number("sharpness", sharpness, positive=True)
    alpha, beta = checked_number("alpha", alpha), checked_number("beta", beta, positive=True)
    limits = [beta + alpha / h]
    if alpha > 0:
        limits.append(2 / alpha)
    # h gamma^2 - 2 (beta h + alpha) gamma + 4 > 0 up to its smaller root, written so that small h does not cancel
    half = beta * h + alpha
    discriminant = 1 - 4 * h / half / half  # over half^2, which might overflow
    if discriminant >= 0:
        limits.append(4 / half / (1 + math.sqrt(discriminant)))
    return min(limits)
