"""Nondimensionalisation of summary-Newton's cubic model, and division that is safe at zero.

All thresholds of `inna_core.newton.cubic_solver` are then free of units: multiplying the loss or a group's direction by
a number changes the step sizes as mathematics says, and nothing else. A power of two times the loss changes no bit.
"""

from typing import NamedTuple

from inna_core.algorithm import Array, Namespace


class CubicModel(NamedTuple):
    """The model -g^T y + 1/2 y^T H y + 1/6 |diag(d) y|^3, free of units: the largest entries of g, H are about 1."""

    g: Array
    H: Array
    d: Array


class Units(NamedTuple):
    """eta = 2^exponent * group * y."""

    exponent: Array
    group: Array


def ratio(xp: Namespace, a: Array, b: Array, otherwise: float = 0.0) -> Array:
    """Return a / b, or another number where b is zero."""
    return xp.where(b != 0, a / xp.where(b != 0, b, xp.ones_like(b)), xp.full_like(b, otherwise))


def norm(xp: Namespace, x: Array) -> Array:
    """Return the Euclidean norm, without overflow of the squares."""
    largest = xp.max(xp.abs(x))
    return largest * xp.sqrt(xp.sum(ratio(xp, x, xp.ones_like(x) * largest) ** 2))


def _exponent(xp: Namespace, x: Array) -> Array:
    """Return the exponent e with 2^e <= x < 2^(e+1), about; 0 for x = 0."""
    positive = x > 0
    return xp.where(positive, xp.floor(xp.log2(xp.where(positive, x, xp.ones_like(x)))), xp.zeros_like(x))


def _power(xp: Namespace, exponent: Array, limit: float = 1000.0) -> Array:
    """Return 2^exponent."""
    return xp.pow(xp.full_like(exponent, 2.0), xp.clip(exponent, min=-limit, max=limit))


def nondimensionalised(xp: Namespace, g: Array, H: Array, T: Array) -> tuple[CubicModel, Units]:
    """Return the cubic model of a summary without units, and the units that were taken out."""
    G, K, C = xp.max(xp.abs(g)), xp.max(xp.abs(H)), xp.max(T)
    zero = xp.zeros_like(G)
    # The unit of eta is the shorter of two steps, g over the curvature and sqrt(g over the third derivative).
    eG, eK, eC = (_exponent(xp, x) for x in (G, K, C))
    over_curvature, over_third = xp.where(K > 0, eG - eK, zero), xp.where(C > 0, xp.floor((eG - eC) / 2), zero)
    shorter = xp.where((K > 0) & (C > 0), xp.minimum(over_curvature, over_third), over_curvature + over_third)
    e = xp.where(G > 0, shorter, xp.where((K > 0) & (C > 0), eK - eC, zero))
    # The unit of the loss makes the model's largest term about 1.
    terms = [
        xp.where(x > 0, k * e + ex, xp.full_like(zero, -xp.inf)) for k, x, ex in ((1, G, eG), (2, K, eK), (3, C, eC))
    ]
    largest = xp.maximum(xp.maximum(terms[0], terms[1]), terms[2])
    largest = xp.where(largest > -xp.inf, largest, zero)
    g, H, T = (
        x * _power(xp, -ex) * _power(xp, xp.where(term > -xp.inf, term - largest, zero))
        for x, ex, term in zip((g, H, T), (eG, eK, eC), terms, strict=True)
    )

    a = _group_scale(xp, g, H, T)
    g, H, d = a * g, H * a[:, None] * a[None, :], a * xp.pow(T, 1 / 3)
    # The unit of y makes the largest entry of g 1; where g = 0, the largest entry of d.
    G, D = xp.max(xp.abs(g)), xp.max(d)
    unit = _power(xp, xp.where(G > 0, _exponent(xp, G), -3 * _exponent(xp, D)))
    return CubicModel(g / unit, H, d * xp.pow(unit, 1 / 3)), Units(e, a * unit)


def _group_scale(xp: Namespace, g: Array, H: Array, T: Array) -> Array:
    """Return a_s that balance the rows of H and follow a change of a group's unit (convexification needs that)."""
    h = xp.abs(xp.linalg.diagonal(H))
    # From the group's own curvature, else its coupling to other groups, else its gradient or third derivative.
    a = ratio(xp, xp.ones_like(h), xp.sqrt(h))
    coupled = xp.max(xp.abs(H) * a[None, :], axis=1)
    for inverse_scale in (coupled, xp.abs(g), xp.pow(T, 1 / 3)):
        a = xp.where(a > 0, a, ratio(xp, xp.ones_like(inverse_scale), inverse_scale))
    a = xp.where(a > 0, a, xp.ones_like(a))
    for _ in range(4):  # enough for all entries of H to be at most about 1, even where a diagonal entry is tiny
        a = xp.clip(a, min=2.0**-200, max=2.0**200)
        largest = xp.max(xp.abs(H * a[:, None] * a[None, :]), axis=1)
        a = a * ratio(xp, xp.ones_like(a), xp.sqrt(largest), otherwise=1.0)
    return xp.clip(a, min=2.0**-200, max=2.0**200)


def restore_units(xp: Namespace, y: Array, units: Units, limit: float) -> tuple[Array, Array]:
    """Return eta, clipped to [-limit, limit], and whether nothing was clipped."""
    eta = y * units.group
    bound = _power(xp, xp.log2(xp.full_like(units.exponent, limit)) - units.exponent)
    fits = xp.all(xp.abs(eta) <= bound)
    # in two factors: the power alone may overflow where the product does not
    half = _power(xp, xp.floor(units.exponent / 2))
    return xp.clip(eta, min=-bound, max=bound) * half * _power(xp, units.exponent - xp.floor(units.exponent / 2)), fits
