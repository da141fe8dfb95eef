"""Minimiser of summary-Newton's cubic model, see `inna_core.newton.step_sizes`.

In units that make lambda one, the minimiser y of -g^T y + 1/2 y^T H y + 1/6 |D y|^3 satisfies, M being positive
semidefinite,

    M(rho) y = g,        M(rho) = H + rho D^2,        rho = |D y| / 2                                         (1)

| symbol   | meaning                                          | range       | name in code     |
|----------|--------------------------------------------------|-------------|------------------|
| rho      | lambda r / 2, in units that make lambda one      | >= 0        | ``rho``          |
| rho_min  | least rho for which M is positive semidefinite   | >= 0        | ``rho_min``      |

How (1) is solved, for one small dense problem in float64, with ``linalg.eigh`` alone and no division by D:

1. Take out the units of the loss and of each group's direction, see `inna_core.newton.units`.
2. If H is not positive definite on the null space of D there is no minimiser (or no single one). Then H is replaced by
   the matrix of its absolute eigenvalues, none below 1e-3 of the largest, and the status says so.
3. Find some rho0 for which M is positive definite, away from the boundary.
4. Whiten: B^T M(rho0) B = I and B^T D^2 B = diag(delta). In these coordinates (1) is one equation in r,
   increasing and almost linear in logarithms; Newton in a bracket finds its root to full precision even next to the
   pole. Where g has no component along the pole ("hard case") a multiple of the null vector completes the radius.
5. Repeat 4 around the root just found, where rounding is least, until the residual of (1) is at rounding level.
"""

from collections.abc import Callable
from typing import NamedTuple

from inna_core.algorithm import Array, Namespace
from inna_core.newton.units import CubicModel, norm, ratio

_FLOOR = 1e-3
"""Least eigenvalue of a convexified H, as a fraction of the largest: bounds a step along a flat direction."""

_TOLERANCE = 1e-10
"""Residual of (1), relative, above which a result is reported as failed."""

_MAX_REFINEMENTS, _MAX_SHIFTS, _MAX_ROOT_STEPS = 3, 10, 20
"""Limits of step 4's repetitions, step 3's trial shifts and Newton steps in the radius; the tests need 3, 8 and 12."""


Loop = Callable[[Callable[[tuple[Array, ...]], tuple[Array, ...]], tuple[Array, ...], int], tuple[Array, ...]]


class _Candidate(NamedTuple):
    """An approximate solution of (1): y, rho = |d y| / 2, its residual, and the rho0 with which to refine it."""

    y: Array
    rho: Array
    hard: Array
    residual: Array
    next_rho0: Array


def python_loop(
    body: Callable[[tuple[Array, ...]], tuple[Array, ...]], state: tuple[Array, ...], rounds: int
) -> tuple[Array, ...]:
    """Apply a body until the state's last entry, a flag, is true; see `inna_core.newton_step_sizes`."""
    for _ in range(rounds):
        state = body(state)
        try:
            if bool(state[-1]):
                break
        except (TypeError, RuntimeError):
            pass  # traced: the flag has no value, so all rounds run; those after it is set change nothing
    return state


def _diagonal(xp: Namespace, x: Array) -> Array:
    return xp.eye(x.shape[0], dtype=x.dtype) * x[None, :]


def _eigh(xp: Namespace, A: Array) -> tuple[Array, Array]:
    A = xp.where(xp.isfinite(A), A, xp.zeros_like(A))
    values, vectors = xp.linalg.eigh((A + A.T) / 2)
    return values, vectors


def _jacobi_scaled_eigh(xp: Namespace, M: Array) -> tuple[Array, Array, Array]:
    """Return c, w, V such that c_s M_st c_t = V diag(w) V^T has diagonal entries of size 1 (or 0)."""
    c = xp.clip(ratio(xp, xp.ones_like(M[0, :]), xp.sqrt(xp.abs(xp.linalg.diagonal(M))), otherwise=1.0), max=2.0**200)
    w, V = _eigh(xp, M * c[:, None] * c[None, :])
    return c, w, V


def convexify(xp: Namespace, model: CubicModel) -> tuple[CubicModel, Array, Array, Array]:
    """Convexify the model if it has no single minimiser.

    Returns:
        The model; whether it was convexified; the least eigenvalue of the scaled H on the null space of D; and which
        groups are uninformative.
    """
    g, H, d = model
    eps = xp.finfo(H.dtype).eps
    quadratic = d * d == 0  # the null space of D
    # Without curvature and third derivative a group has step size 0. With a gradient the model is then unbounded below.
    uninformative = quadratic & (xp.max(xp.abs(H), axis=1) == 0)
    linear_unbounded = xp.any(uninformative & (g != 0))
    g = xp.where(uninformative, xp.zeros_like(g), g)
    H = H + _diagonal(xp, xp.astype(uninformative, H.dtype))

    both = quadratic[:, None] & quadratic[None, :]
    on_null_space = xp.where(both, H, _diagonal(xp, xp.astype(~quadratic, H.dtype)))
    _, w, _ = _jacobi_scaled_eigh(xp, on_null_space)
    unbounded = xp.any(quadratic & (xp.linalg.diagonal(H) <= 0)) | (w[0] <= 8 * H.shape[0] * eps)
    w_all, V = _eigh(xp, H)
    sizes = xp.abs(w_all)
    sizes = xp.maximum(sizes, _FLOOR * xp.max(sizes) * xp.ones_like(sizes))
    H = xp.where(unbounded, (V * sizes[None, :]) @ V.T, H)
    least = xp.where(unbounded, xp.ones_like(w[0]), w[0])
    return CubicModel(g, H, d), unbounded | linear_unbounded, least, uninformative


def _positive_definite_shift(xp: Namespace, model: CubicModel, least: Array, loop: Loop) -> Array:
    """Return some rho0 for which M(rho0) is positive definite, away from the boundary where that is possible."""
    _, H, d = model
    eps = xp.finfo(H.dtype).eps
    D2 = _diagonal(xp, d * d)
    target = xp.clip(least / 4, max=1e-3)

    def trial(state: tuple[Array, ...]) -> tuple[Array, ...]:
        rho, accepted, factor, done = state
        c, w, V = _jacobi_scaled_eigh(xp, H + rho * D2)
        done = done | (w[0] > accepted)
        # To first order eigenvalue i reaches its target at rho + (target - w_i) / z_i^T D^2 z_i, and never before.
        growth = xp.sum((d[:, None] * c[:, None] * V) ** 2, axis=0)
        small = (w < target) & (growth > 0)
        estimate = rho + xp.max(xp.where(small, ratio(xp, target - w, growth), xp.zeros_like(w)))
        rho = xp.where(done, rho, xp.clip(xp.maximum(factor * rho, 2 * estimate), max=1e100))
        return rho, target / 8, 2 * factor, done

    accepted = xp.clip(target / 8, max=eps**0.5)
    return loop(trial, (xp.zeros_like(least), accepted, xp.ones_like(least), least < 0), _MAX_SHIFTS)[0]


def minimiser(xp: Namespace, model: CubicModel, least: Array, loop: Loop) -> tuple[Array, Array, Array]:
    """Return the solution y of (1), whether it was the hard case, and whether (1) holds to `_TOLERANCE`."""
    eps = xp.finfo(model.H.dtype).eps

    def refine(state: tuple[Array, ...]) -> tuple[Array, ...]:
        best, done = _Candidate(*state[:-1]), state[-1]
        new = _candidate(xp, model, best.next_rho0, loop)
        better = ~done & (new.residual < best.residual)
        done = done | ~better | (new.residual <= 8 * eps)
        return *(xp.where(better, x, old) for x, old in zip(new, best, strict=True)), done

    zero, false = xp.zeros_like(least), least != least
    rho0 = _positive_definite_shift(xp, model, least, loop)
    start = _Candidate(xp.zeros_like(model.g), zero, false, zero + xp.inf, rho0)
    best = _Candidate(*loop(refine, (*start, false), _MAX_REFINEMENTS)[:-1])
    return best.y, best.hard, best.residual <= max(_TOLERANCE, 1e4 * eps)


def _candidate(xp: Namespace, model: CubicModel, rho0: Array, loop: Loop) -> _Candidate:
    """Solve (1) in the coordinates in which M(rho0) and D^2 are diagonal."""
    g, H, d = model
    size, eps = H.shape[0], xp.finfo(H.dtype).eps
    one, zero = xp.ones_like(rho0), xp.zeros_like(rho0)
    D2 = _diagonal(xp, d * d)
    c, w, V = _jacobi_scaled_eigh(xp, H + rho0 * D2)
    W = c[:, None] * V / xp.sqrt(xp.clip(w, min=eps * eps))[None, :]
    delta, U = _eigh(xp, (W.T * (d * d)[None, :]) @ W)
    delta, B = xp.clip(delta, min=0.0), W @ U
    gamma = B.T @ g
    # In the hard case rounding of this sum must not decide the sign: treat rounding errors as zero
    noise = 4 * size * eps * (xp.abs(B).T @ xp.abs(g))
    gamma = xp.where(xp.abs(gamma) > noise, gamma, xp.zeros_like(gamma))

    # B^T M(rho) B = diag(base + p share), where p >= 0 counts from the pole, or from rho = 0 if the pole is at rho < 0
    top = xp.where(delta[-1] > 0, delta[-1], one)
    start = xp.clip(one - rho0 * top, min=0.0)
    rho_min = xp.where(rho0 - one / top > 4 * size * eps * rho0, rho0 - one / top, zero)
    share = delta / top
    base = (1 - share) + start * share
    p = _root(xp, gamma * xp.sqrt(delta), base, share, rho_min, top, loop)
    scale = base + p * share
    y_white = ratio(xp, gamma, scale)
    rho = xp.where(start > 0, zero, rho_min) + p / top

    # Hard case: only a multiple of the null vector completes the radius
    missing = 4 * rho * rho - xp.sum(delta * y_white * y_white)
    hard = (p == 0) & (rho_min > 0) & (missing > 0)
    null = B[:, -1] * xp.where(xp.sum(B[:, -1]) < 0, -one, one)
    y = B @ y_white + xp.where(hard, xp.sqrt(xp.clip(missing, min=0.0) / top), zero) * null

    # One step of iterative refinement, after which |d y| = 2 rho must hold again: next to the pole add a multiple of
    # the null vector, which hardly changes M y there; elsewhere take rho from y
    M = H + rho * D2
    inverse = xp.where(scale > 1e-8, ratio(xp, one, scale), xp.zeros_like(scale))
    y = y + B @ (inverse * (B.T @ (g - M @ y)))
    y = xp.where(scale[-1] < 1e-3, y + _to_radius(xp, d * y, d * null, 2 * rho) * null, y)
    rho = norm(xp, d * y) / 2
    next_rho0 = xp.maximum(xp.maximum(rho, 1.5 * rho_min), 1e-6 * rho0)
    return _Candidate(y, rho, hard, _residual(xp, model, y, rho), next_rho0)


def _root(
    xp: Namespace, coefficients: Array, base: Array, share: Array, rho_min: Array, top: Array, loop: Loop
) -> Array:
    """Return the p >= 0 at which |coefficients / (base + p share)| = 2 (rho_min + p / top); 0 if there is none.

    The logarithm of the ratio of both sides, as a function of log p, has a slope between 0 and 2, constant at either
    end. The step multiplies p, so that p keeps its relative precision however small it is.
    """
    one, zero = xp.ones_like(top), xp.zeros_like(top)
    eps = xp.finfo(top.dtype).eps
    at_centre = norm(xp, coefficients / xp.clip(base + share, min=1.0))

    def difference(p: Array) -> tuple[Array, Array]:
        scale = base + p * share
        terms = ratio(xp, coefficients, scale)
        squares = terms * terms
        total = xp.sum(squares)
        radius = 2 * (rho_min + p / top)
        falls = ratio(xp, xp.sum(squares * ratio(xp, p * share, scale)), total)
        value = xp.log(ratio(xp, radius, xp.sqrt(total), otherwise=2.0))
        return value, falls + 2 * p / top / radius

    high = one + xp.clip(top, max=1e120) * xp.clip(at_centre, max=1e120)
    low = high * eps**4
    none = difference(low)[0] >= 0

    def newton(state: tuple[Array, ...]) -> tuple[Array, ...]:
        p, low, high, before, done = state
        value, slope = difference(p)
        low, high = xp.where(value < 0, p, low), xp.where(value >= 0, p, high)
        step = ratio(xp, value, slope)
        moved = p * xp.exp(-xp.clip(step, min=-200.0, max=200.0))
        accepted = (moved > low) & (moved < high) & (xp.abs(value) <= before / 2)
        before = xp.where(accepted, xp.abs(value), zero + xp.inf)
        last = xp.abs(step) <= 1e-3 * eps**0.5  # the next value would differ by less than rounding
        p = xp.where(done, p, xp.where(accepted | last, moved, xp.sqrt(low) * xp.sqrt(high)))
        return p, low, high, before, done | last

    # start next to the pole, from where the first step lands near the root
    p = loop(newton, (low, low, high, zero + xp.inf, none), _MAX_ROOT_STEPS)[0]
    return xp.where(none, zero, p)


def _to_radius(xp: Namespace, y: Array, z: Array, radius: Array) -> Array:
    """Return the smaller multiple tau of z for which |y + tau z| = radius, 0 where there is none."""
    length = norm(xp, z)
    y, z = ratio(xp, y, radius * xp.ones_like(y)), ratio(xp, z, length * xp.ones_like(z))
    y = xp.clip(y, min=-1e120, max=1e120)
    b, c = xp.sum(y * z), xp.sum(y * y) - 1
    discriminant = b * b - c
    root = xp.sqrt(xp.clip(discriminant, min=0.0))
    # the root that does not cancel has b + sign(b) root in the denominator
    tau = ratio(xp, -c, b + xp.where(b < 0, -root, root))
    return xp.where(discriminant > 0, tau * ratio(xp, radius, length), xp.zeros_like(tau))


def _residual(xp: Namespace, model: CubicModel, y: Array, rho: Array) -> Array:
    """Return the largest entry of M y - g relative to that of the terms it sums, |H| |y| + rho D^2 |y| + |g|.

    Rows are compared in their own units, taken from |H| and D^2 since the diagonal of M, and M y, may vanish.
    """
    g, H, d = model
    sizes = xp.abs(xp.linalg.diagonal(H)) + rho * d * d
    c = ratio(xp, xp.ones_like(g), xp.sqrt(sizes), otherwise=1.0)
    terms = xp.abs(H) @ xp.abs(y) + rho * d * d * xp.abs(y) + xp.abs(g)
    return ratio(xp, xp.max(c * xp.abs(H @ y + rho * d * d * y - g)), xp.max(c * terms))
