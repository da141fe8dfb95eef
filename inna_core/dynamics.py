"""The energy of INNA, and the step sizes for which it is stable.

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
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.coefficients import Coefficients
from inna_core.inna import INNA


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
    total = energy_of(loss, 0.0, alpha * beta)
    for v in velocity:
        xp = array_namespace(v)
        total = total + xp.sum(squared_modulus(v, xp))
    return total


def energy_of(loss: Scalar, velocity_square: Scalar, alpha_beta: Scalar) -> Scalar:
    """Return E from the square of the velocity, unchecked."""
    return 2 * (1 + alpha_beta) * loss + velocity_square


def largest_stable_lr(
    sharpness: float,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    momentum: float | None = None,
    lead: float | None = None,
) -> float:
    """Return the limit of lr: below it INNA is stable for every curvature in (0, sharpness].

    Args:
        sharpness: largest eigenvalue of the Hessian, > 0.
        alpha, beta, momentum, lead: as `inna_core.INNA`.

    Returns:
        The limit; in units of time, like 1/alpha and beta, or with momentum in units of time squared.

    Raises:
        ValueError, TypeError: if an argument is not a number in its range.

    Example:
        >>> round(largest_stable_lr(100.0, alpha=0.5, beta=0.1), 6)
        0.105
        >>> round(largest_stable_lr(100.0, momentum=0.9, lead=1.0), 6)  # the heavy ball's 2 (1 + m) / h
        0.038
    """
    h, by = checked_number("sharpness", sharpness, positive=True), INNA(alpha, beta, momentum, lead).coefficients(1.0)
    if momentum is None:
        return stable_with_dampings(h, by.alpha, by.beta)
    return stable_with_momentum(h, forget=by.alpha_gamma, lead=by.beta)


def largest_stable_sharpness(by: Coefficients, xp: Namespace) -> Array:
    """Return the limit of the sharpness, below which a step is stable: the inverse of `largest_stable_lr`.

    Args:
        by: the step's coefficients; gamma is a 0-d array, which may be traced.
        xp: its namespace.

    Returns:
        The limit of the largest eigenvalue of the Hessian (in INNAprop of the scaled one); 0-d, infinite at gamma = 0.

    Example:
        >>> import numpy as np
        >>> lr = np.asarray(largest_stable_lr(100.0, momentum=0.9))
        >>> round(float(largest_stable_sharpness(INNA(momentum=0.9).coefficients(lr), np)), 9)
        100.0
    """
    gamma, beta, alpha_gamma, _ = by
    infinite = 0 * gamma + math.inf

    def below(numerator: Scalar, denominator: Array) -> Array:  # the condition h denominator < numerator
        binds = denominator > 0
        return xp.where(binds, numerator / xp.where(binds, denominator, 1 + 0 * gamma), infinite)

    first = below(4 - 2 * alpha_gamma, gamma * (2 * beta - gamma))
    second = below(alpha_gamma, gamma * (gamma - beta))
    stable_if_flat = alpha_gamma + 0 * gamma < 2
    return xp.where(stable_if_flat, xp.where(first < second, first, second), 0 * gamma)


def stable_with_dampings(h: float, alpha: float, beta: float) -> float:
    limits = [beta + alpha / h]
    if alpha > 0:
        limits.append(2 / alpha)
    # h gamma^2 - 2 (beta h + alpha) gamma + 4 > 0 up to its smaller root, written so that small h does not cancel
    half = beta * h + alpha
    discriminant = 1 - 4 * h / half / half  # over half^2, which might overflow
    if discriminant >= 0:
        limits.append(4 / half / (1 + math.sqrt(discriminant)))
    return min(limits)


def stable_with_momentum(h: float, forget: float, lead: float) -> float:
    # the two conditions at the top of this file, with gamma^2 = eta, alpha gamma = 1 - m = forget and beta = lead gamma
    limits = [forget / h / (1 - lead)] if lead < 1 else []
    if lead > 0.5:
        limits.append(2 * (2 - forget) / h / (2 * lead - 1))
    return min(limits)
