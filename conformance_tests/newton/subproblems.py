"""Subproblems of Summary-Newton of every kind, and the conditions that their solutions must meet."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from inna_core import NewtonStepSizes, newton_step_sizes

SIZES = (1, 2, 3, 5, 8, 13, 20, 32, 64)
SIZE_WEIGHTS = (0.15, 0.15, 0.15, 0.15, 0.1, 0.1, 0.1, 0.07, 0.03)

KINDS = (
    "definite",
    "indefinite",
    "singular",
    "graded",
    "graded thirds",
    "hard",
    "some zero thirds",
    "unbounded",
    "zero rows",
    "no thirds",
    "no gradient",
    "no curvature",
    "rank one",
)

BOUNDED = tuple(kind for kind in KINDS if kind != "unbounded")
"""Kinds that have a minimiser by construction."""


@dataclass(frozen=True)
class Subproblem:
    """A summary and lambda_int."""

    gradient: np.ndarray
    hessian: np.ndarray
    third: np.ndarray
    damping: float


def subproblem(kind: str, seed: int, size: int | None = None) -> Subproblem:
    """Return a random subproblem of a kind."""
    rng = np.random.default_rng(seed)
    S = int(rng.choice(SIZES, p=SIZE_WEIGHTS)) if size is None else size
    Q, _ = np.linalg.qr(rng.standard_normal((S, S)))
    g, T = rng.standard_normal(S), rng.standard_normal(S) * rng.choice([1e-3, 1, 1e3])
    spectrum = rng.standard_normal(S)
    chosen = rng.uniform(size=S) < 0.4
    damping = float(rng.choice([0.01, 1.0, 10.0]))
    match kind:
        case "definite" | "no thirds":
            spectrum = 10 ** rng.uniform(-3, 1, S)
        case "singular":
            spectrum = 10 ** rng.uniform(-2, 0, S)
            spectrum[: max(1, S // 3)] = 0
        case "zero rows":
            spectrum = np.abs(spectrum)
        case "no curvature":
            spectrum = np.zeros(S)
        case "rank one":
            spectrum[1:] = 0
    H = Q * spectrum @ Q.T
    match kind:
        case "graded":
            c = 10 ** rng.uniform(-6, 6, S)
            g, H, T = c * g, H * c[:, None] * c, c**3 * T
        case "graded thirds":
            T = T * 10 ** rng.uniform(-9, 9, S)
        case "hard":
            # M(radius) is singular and g orthogonal, or nearly so, to its null vector, the solution short of the radius
            d, radius = np.cbrt(np.abs(T)), 10 ** rng.uniform(-1, 1)
            M = Q * np.append(0, 10 ** rng.uniform(-1, 0, S - 1)) @ Q.T
            H = M - 0.5 * damping * radius * np.diag(d * d)
            y = rng.standard_normal(S)
            g = M @ y * (rng.uniform(0, 1) * radius / np.linalg.norm(d * y))
            if rng.uniform() < 0.3:
                g = g + Q[:, 0] * 10 ** rng.uniform(-16, -6) * np.linalg.norm(g)
        case "some zero thirds":
            T[chosen] = 0
            H[np.ix_(chosen, chosen)] += 3 * np.eye(int(chosen.sum()))
            H[np.ix_(chosen, chosen)] += max(0, -np.linalg.eigvalsh(H[np.ix_(chosen, chosen)]).min(initial=0)) * np.eye(
                int(chosen.sum())
            )
        case "unbounded":
            i = rng.integers(S)
            T[i], H[i, i] = 0, -abs(H[i, i])
        case "zero rows":
            H[chosen] = H[:, chosen] = g[chosen] = T[chosen] = 0
        case "no thirds":
            T = np.zeros(S)
        case "no gradient":
            g = np.zeros(S)
    return Subproblem(g, (H + H.T) / 2, T, damping)


def residual(p: Subproblem, eta: np.ndarray) -> tuple[float, float]:
    """Return how far eta is from M eta = g, relative, and M's least eigenvalue, both with every group in its units.

    The residual is relative to the largest of the terms that M eta - g sums, |H| |eta|, lambda/2 r D^2 |eta| and |g|.
    """
    d2 = np.cbrt(np.abs(p.third)) ** 2
    cubic = 0.5 * p.damping * np.sqrt(np.sum(d2 * eta**2)) * d2
    sizes = np.abs(np.diag(p.hessian)) + cubic
    c = 1 / np.sqrt(np.where(sizes > 0, sizes, 1))
    M = p.hessian + np.diag(cubic)
    terms = np.max(c * (np.abs(p.hessian) @ np.abs(eta) + cubic * np.abs(eta) + np.abs(p.gradient)))
    error = np.max(c * np.abs(M @ eta - p.gradient))
    scaled = M * c[:, None] * c
    return error / terms if terms > 0 else error, np.linalg.eigvalsh(scaled).min() / max(1, np.abs(scaled).max())


def value(p: Subproblem, eta: np.ndarray) -> float:
    """Return the cubic model at eta."""
    cubic = np.sqrt(np.sum(np.cbrt(np.abs(p.third)) ** 2 * eta**2)) ** 3
    return float(-p.gradient @ eta + eta @ p.hessian @ eta / 2 + p.damping / 6 * cubic)


def solved(p: Subproblem, **changes: Any) -> NewtonStepSizes:
    """Return our step sizes."""
    return newton_step_sizes(p.gradient, p.hessian, p.third, damping=p.damping, **changes)
