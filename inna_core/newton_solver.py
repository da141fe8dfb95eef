"""The solver of Summary-Newton's subproblem: the minimiser of a cubic model, see `inna_core.newton_summary`.

In units that make lambda one, the minimiser y of -g^T y + 1/2 y^T H y + 1/6 |D y|^3 satisfies, M being positive
semidefinite,

    M(rho) y = g,        M(rho) = H + rho D^2,        rho = |D y| / 2                                         (1)

| symbol   | meaning                                          | range       | name in code     |
|----------|--------------------------------------------------|-------------|------------------|
| rho      | lambda r / 2, in units that make lambda one      | >= 0        | ``rho``          |
| x        | least rho for which M is positive semidefinite   | >= 0        | ``lowest``       |

How (1) is solved, for one small dense problem in float64, with ``linalg.eigh`` alone and no division by D:

1. Scale. Units of the loss and of each group's direction are taken out, so that no threshold below has a unit:
   multiplying the loss or a group's direction changes eta as mathematics says, and nothing else.
2. If H is not positive definite on the null space of D there is no minimiser (or no single one). Then H is replaced by
   the matrix of its absolute eigenvalues, none below 1e-3 of the largest, and the status says so.
3. Find some rho0 for which M is safely positive definite.
4. Whiten: B^T M(rho0) B = I and B^T D^2 B = diag(delta). In these coordinates (1) is one equation in r,
   increasing and almost linear in logarithms; Newton in a bracket finds its root to full precision even next to the
   pole. Where g has no component along the pole ("hard case") a multiple of the null vector completes the radius.
5. Repeat 4 around the root just found, where rounding is least, until the residual of (1) is at rounding level.
"""

from collections.abc import Callable
from typing import NamedTuple

from inna_core.algorithm import Array, Namespace

_FLOOR = 1e-3
"""Least eigenvalue of a convexified H, as a fraction of the largest: bounds a step along a flat direction."""

_TOLERANCE = 1e-10
"""Residual of (1), relative, above which a result is reported as failed."""

_CENTRES, _SHIFTS, _ROOT_STEPS = 3, 10, 20
"""Most repetitions of step 4, trial shifts of step 3 and Newton steps in the radius; 3, 8 and 12 were ever needed."""


Loop = Callable[[Callable[[tuple[Array, ...]], tuple[Array, ...]], tuple[Array, ...], int], tuple[Array, ...]]


class _Problem(NamedTuple):
    """The model -g^T y + 1/2 y^T H y + 1/6 |diag(d) y|^3, free of units: the largest entries of g, H are about 1."""

    g: Array
    H: Array
    d: Array


class _Units(NamedTuple):
    """eta = 2^exponent * group * y."""

    exponent: Array
    group: Array


class _Candidate(NamedTuple):
    """An approximate solution of (1): y and rho = |d y| / 2, how well it fits, and where to look closer."""

    y: Array
    rho: Array
    hard: Array
    residual: Array
    centre: Array


def python_loop(
    body: Callable[[tuple[Array, ...]], tuple[Array, ...]], state: tuple[Array, ...], rounds: int
) -> tuple[Array, ...]:
    for _ in range(rounds):
        state = body(state)
        try:
            if bool(state[-1]):
                break
        except (TypeError, RuntimeError):  # traced: not known yet, and further rounds change nothing where it holds
            pass
    return state


def ratio(xp: Namespace, a: Array, b: Array, otherwise: float = 0.0) -> Array:
    """Return a / b, or another number where b is zero."""
    return xp.where(b != 0, a / xp.where(b != 0, b, xp.ones_like(b)), xp.full_like(b, otherwise))


def norm(xp: Namespace, x: Array) -> Array:
    largest = xp.max(xp.abs(x))
    return largest * xp.sqrt(xp.sum(ratio(xp, x, xp.ones_like(x) * largest) ** 2))


def _diagonal(xp: Namespace, x: Array) -> Array:
    return xp.eye(x.shape[0], dtype=x.dtype) * x[None, :]


def _exponent(xp: Namespace, x: Array) -> Array:
    """Return the exponent e with 2^e <= x < 2^(e+1), about; 0 for x = 0."""
    positive = x > 0
    return xp.where(positive, xp.floor(xp.log2(xp.where(positive, x, xp.ones_like(x)))), xp.zeros_like(x))


def _power(xp: Namespace, exponent: Array, limit: float = 1000.0) -> Array:
    return xp.pow(xp.full_like(exponent, 2.0), xp.clip(exponent, min=-limit, max=limit))


def scaled(xp: Namespace, g: Array, H: Array, T: Array) -> tuple[_Problem, _Units]:
    """Take the units out of a summary."""
    G, K, C = xp.max(xp.abs(g)), xp.max(xp.abs(H)), xp.max(T)
    zero = xp.zeros_like(G)
    # The unit of eta: the length of the shorter of the steps against the curvature and against the third derivative.
    eG, eK, eC = (_exponent(xp, x) for x in (G, K, C))
    against_K, against_C = xp.where(K > 0, eG - eK, zero), xp.where(C > 0, xp.floor((eG - eC) / 2), zero)
    shorter = xp.where((K > 0) & (C > 0), xp.minimum(against_K, against_C), against_K + against_C)
    e = xp.where(G > 0, shorter, xp.where((K > 0) & (C > 0), eK - eC, zero))
    # The model's value in the unit that makes its largest term about 1.
    terms = [
        xp.where(x > 0, k * e + ex, xp.full_like(zero, -xp.inf)) for k, x, ex in ((1, G, eG), (2, K, eK), (3, C, eC))
    ]
    top = xp.maximum(xp.maximum(terms[0], terms[1]), terms[2])
    top = xp.where(top > -xp.inf, top, zero)
    g, H, T = (
        x * _power(xp, -ex) * _power(xp, xp.where(term > -xp.inf, term - top, zero))
        for x, ex, term in zip((g, H, T), (eG, eK, eC), terms, strict=True)
    )

    a = _group_scale(xp, g, H, T)
    g, H, d = a * g, H * a[:, None] * a[None, :], a * xp.pow(T, 1 / 3)
    # One unit is left, that of y: the largest entry of g becomes 1; without g, that of d.
    G, D = xp.max(xp.abs(g)), xp.max(d)
    unit = _power(xp, xp.where(G > 0, _exponent(xp, G), -3 * _exponent(xp, D)))
    return _Problem(g / unit, H, d * xp.pow(unit, 1 / 3)), _Units(e, a * unit)


def _group_scale(xp: Namespace, g: Array, H: Array, T: Array) -> Array:
    """Return a_s that balance the rows of H, and that follow a change of any group's units: convexity depends on it."""
    h = xp.abs(xp.linalg.diagonal(H))
    # From the curvature of the group itself; else of those it is coupled to; else from whatever it has.
    a = ratio(xp, xp.ones_like(h), xp.sqrt(h))
    coupled = xp.max(xp.abs(H) * a[None, :], axis=1)
    for own in (coupled, xp.abs(g), xp.pow(T, 1 / 3)):
        a = xp.where(a > 0, a, ratio(xp, xp.ones_like(own), own))
    a = xp.where(a > 0, a, xp.ones_like(a))
    for _ in range(4):  # after which no entry of a row exceeds about 1, even where a diagonal entry is next to nothing
        a = xp.clip(a, min=2.0**-200, max=2.0**200)
        largest = xp.max(xp.abs(H * a[:, None] * a[None, :]), axis=1)
        a = a * ratio(xp, xp.ones_like(a), xp.sqrt(largest), otherwise=1.0)
    return xp.clip(a, min=2.0**-200, max=2.0**200)


def from_units(xp: Namespace, y: Array, units: _Units, limit: float) -> tuple[Array, Array]:
    """Return eta, no entry beyond a limit, and whether the limit was kept to."""
    eta = y * units.group
    bound = _power(xp, xp.log2(xp.full_like(units.exponent, limit)) - units.exponent)
    fits = xp.all(xp.abs(eta) <= bound)
    # in two factors, since the power alone may overflow where the product does not
    half = _power(xp, xp.floor(units.exponent / 2))
    return xp.clip(eta, min=-bound, max=bound) * half * _power(xp, units.exponent - xp.floor(units.exponent / 2)), fits


def _eigh(xp: Namespace, A: Array) -> tuple[Array, Array]:
    A = xp.where(xp.isfinite(A), A, xp.zeros_like(A))
    values, vectors = xp.linalg.eigh((A + A.T) / 2)
    return values, vectors


def _jacobi(xp: Namespace, M: Array) -> tuple[Array, Array, Array]:
    """Return c, w, V such that c_s M_st c_t = V diag(w) V^T has diagonal entries of size 1 (or 0)."""
    c = xp.clip(ratio(xp, xp.ones_like(M[0, :]), xp.sqrt(xp.abs(xp.linalg.diagonal(M))), otherwise=1.0), max=2.0**200)
    w, V = _eigh(xp, M * c[:, None] * c[None, :])
    return c, w, V


def convexify(xp: Namespace, problem: _Problem) -> tuple[_Problem, Array, Array, Array]:
    """Return the problem, convexified if it has no single minimiser.

    Also: whether it was, the least eigenvalue of the scaled H on ker D, and which groups have nothing to go by.
    """
    g, H, d = problem
    eps = xp.finfo(H.dtype).eps
    free = d * d == 0
    # A group without curvature and third derivative: stays where it is, and only a zero gradient makes that a minimum.
    bare = free & (xp.max(xp.abs(H), axis=1) == 0)
    aimless = xp.any(bare & (g != 0))
    g = xp.where(bare, xp.zeros_like(g), g)
    H = H + _diagonal(xp, xp.astype(bare, H.dtype))

    diagonal = xp.linalg.diagonal(H)
    on_kernel = xp.where(free[:, None] & free[None, :], H, _diagonal(xp, xp.astype(~free, H.dtype)))
    _, w, _ = _jacobi(xp, on_kernel)
    unbounded = xp.any(free & (diagonal <= 0)) | (w[0] <= 8 * H.shape[0] * eps)
    w_all, V = _eigh(xp, H)
    sizes = xp.abs(w_all)
    sizes = xp.maximum(sizes, _FLOOR * xp.max(sizes) * xp.ones_like(sizes))
    H = xp.where(unbounded, (V * sizes[None, :]) @ V.T, H)
    return _Problem(g, H, d), unbounded | aimless, xp.where(unbounded, xp.ones_like(w[0]), w[0]), bare


def _positive_definite_shift(xp: Namespace, problem: _Problem, least: Array, loop: Loop) -> Array:
    """Return some rho0 for which M(rho0) is positive definite, away from the boundary where that is possible."""
    _, H, d = problem
    eps = xp.finfo(H.dtype).eps
    D2 = _diagonal(xp, d * d)
    wanted = xp.clip(least / 4, max=1e-3)

    def trial(state: tuple[Array, ...]) -> tuple[Array, ...]:
        rho, enough, factor, found = state
        c, w, V = _jacobi(xp, H + rho * D2)
        found = found | (w[0] > enough)
        # To first order eigenvalue i reaches the wanted size at rho + (wanted - w_i) / z_i^T D^2 z_i, and never before.
        growth = xp.sum((d[:, None] * c[:, None] * V) ** 2, axis=0)
        weak = (w < wanted) & (growth > 0)
        target = rho + xp.max(xp.where(weak, ratio(xp, wanted - w, growth), xp.zeros_like(w)))
        rho = xp.where(found, rho, xp.clip(xp.maximum(factor * rho, 2 * target), max=1e100))
        return rho, wanted / 8, 2 * factor, found

    enough = xp.clip(wanted / 8, max=eps**0.5)
    return loop(trial, (xp.zeros_like(least), enough, xp.ones_like(least), least < 0), _SHIFTS)[0]


def minimiser(xp: Namespace, problem: _Problem, least: Array, loop: Loop) -> tuple[Array, Array, Array]:
    """Return the solution y of (1), whether it was the hard case, and whether (1) holds to `_TOLERANCE`."""
    eps = xp.finfo(problem.H.dtype).eps

    def closer(state: tuple[Array, ...]) -> tuple[Array, ...]:
        best, done = _Candidate(*state[:-1]), state[-1]
        new = _candidate(xp, problem, best.centre, loop)
        better = ~done & (new.residual < best.residual)
        done = done | ~better | (new.residual <= 8 * eps)
        return *(xp.where(better, x, old) for x, old in zip(new, best, strict=True)), done

    zero, no = xp.zeros_like(least), least != least
    rho0 = _positive_definite_shift(xp, problem, least, loop)
    start = _Candidate(xp.zeros_like(problem.g), zero, no, zero + xp.inf, rho0)
    best = _Candidate(*loop(closer, (*start, no), _CENTRES)[:-1])
    return best.y, best.hard, best.residual <= max(_TOLERANCE, 1e4 * eps)


def _candidate(xp: Namespace, problem: _Problem, rho0: Array, loop: Loop) -> _Candidate:
    """Solve (1) in the coordinates in which M(rho0) and D^2 are diagonal."""
    g, H, d = problem
    size, eps = H.shape[0], xp.finfo(H.dtype).eps
    one, zero = xp.ones_like(rho0), xp.zeros_like(rho0)
    D2 = _diagonal(xp, d * d)
    c, w, V = _jacobi(xp, H + rho0 * D2)
    W = c[:, None] * V / xp.sqrt(xp.clip(w, min=eps * eps))[None, :]
    delta, U = _eigh(xp, (W.T * (d * d)[None, :]) @ W)
    delta, B = xp.clip(delta, min=0.0), W @ U
    gamma = B.T @ g
    # What is rounding of the sum would choose the sign in the hard case
    noise = 4 * size * eps * (xp.abs(B).T @ xp.abs(g))
    gamma = xp.where(xp.abs(gamma) > noise, gamma, xp.zeros_like(gamma))

    # B^T M(rho) B = diag(base + p delta / top) where p >= 0 counts from the pole, or from rho = 0 if that comes first
    top = xp.where(delta[-1] > 0, delta[-1], one)
    start = xp.clip(one - rho0 * top, min=0.0)
    lowest = xp.where(rho0 - one / top > 4 * size * eps * rho0, rho0 - one / top, zero)
    share = delta / top
    base = (1 - share) + start * share
    p = _root(xp, gamma * xp.sqrt(delta), base, share, lowest, top, loop)
    scale = base + p * share
    y_white = ratio(xp, gamma, scale)
    rho = xp.where(start > 0, zero, lowest) + p / top

    # Hard case: only a multiple of the null vector can make up the radius
    missing = 4 * rho * rho - xp.sum(delta * y_white * y_white)
    hard = (p == 0) & (lowest > 0) & (missing > 0)
    null = B[:, -1] * xp.where(xp.sum(B[:, -1]) < 0, -one, one)
    y = B @ y_white + xp.where(hard, xp.sqrt(xp.clip(missing, min=0.0) / top), zero) * null

    # One step of iterative refinement, then the radius again: next to the pole by a multiple of the null vector, which
    # costs nothing there, and elsewhere by taking it from y
    M = H + rho * D2
    inverse = xp.where(scale > 1e-8, ratio(xp, one, scale), xp.zeros_like(scale))
    y = y + B @ (inverse * (B.T @ (g - M @ y)))
    y = xp.where(scale[-1] < 1e-3, y + _to_radius(xp, d * y, d * null, 2 * rho) * null, y)
    rho = norm(xp, d * y) / 2
    centre = xp.maximum(xp.maximum(rho, 1.5 * lowest), 1e-6 * rho0)
    return _Candidate(y, rho, hard, _residual(xp, problem, y, rho), centre)


def _root(
    xp: Namespace, coefficients: Array, base: Array, share: Array, lowest: Array, top: Array, loop: Loop
) -> Array:
    """Return the p >= 0 at which |coefficients / (base + p share)| = 2 (lowest + p / top); 0 if there is none.

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
        radius = 2 * (lowest + p / top)
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
        inside = (moved > low) & (moved < high) & (xp.abs(value) <= before / 2)
        before = xp.where(inside, xp.abs(value), zero + xp.inf)
        last = xp.abs(step) <= 1e-3 * eps**0.5  # the next value would differ by less than rounding
        p = xp.where(done, p, xp.where(inside | last, moved, xp.sqrt(low) * xp.sqrt(high)))
        return p, low, high, before, done | last

    # from the side of the pole, where the first step already lands near
    p = loop(newton, (low, low, high, zero + xp.inf, none), _ROOT_STEPS)[0]
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


def _residual(xp: Namespace, problem: _Problem, y: Array, rho: Array) -> Array:
    """Return the largest entry of M y - g relative to that of the terms it sums, |H| |y| + rho D^2 |y| + |g|.

    Each row counts in its own units. The diagonal of M itself, and M y in the hard case, may vanish.
    """
    g, H, d = problem
    sizes = xp.abs(xp.linalg.diagonal(H)) + rho * d * d
    c = ratio(xp, xp.ones_like(g), xp.sqrt(sizes), otherwise=1.0)
    terms = xp.abs(H) @ xp.abs(y) + rho * d * d * xp.abs(y) + xp.abs(g)
    return ratio(xp, xp.max(c * xp.abs(H @ y + rho * d * d * y - g)), xp.max(c * terms))
