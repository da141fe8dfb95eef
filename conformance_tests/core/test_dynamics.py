"""Stability and energy: eigenvalues and INNA's own steps around the limit; energies along steps and along the flow."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from inna_core import INNA
from inna_core.coefficients import Coefficients
from inna_core.dynamics import energy, largest_stable_lr
from inna_core.inna import inertial_step


def spectral_radius(gamma: float, alpha: float, beta: float, h: float) -> float:
    """Of one step of the psi recurrence on h theta^2 / 2, as the paper prints it."""
    c = 1 / beta - alpha
    step = [[1 + gamma * (c - beta * h), -gamma / beta], [gamma * c, 1 - gamma / beta]]
    return float(np.abs(np.linalg.eigvals(np.asarray(step))).max())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("alpha", "beta", "h"),
    list(itertools.product((0.0, 0.1, 0.5, 3.0, 20.0), (0.01, 0.1, 1.0, 5.0), (0.01, 1.0, 300.0))),
)
def test_largest_stable_lr_is_where_an_eigenvalue_leaves_the_unit_disc(alpha: float, beta: float, h: float) -> None:
    limit = largest_stable_lr(h, alpha=alpha, beta=beta)
    curvatures = h * np.asarray([1e-7, 1e-3, 0.1, 0.5, 0.9, 1.0])
    for fraction in (1e-3, 0.1, 0.5, 0.9, 0.999):
        assert max(spectral_radius(fraction * limit, alpha, beta, c) for c in curvatures) <= 1 + 1e-9
    assert max(spectral_radius(1.001 * limit, alpha, beta, c) for c in curvatures) > 1


@pytest.mark.fast
@pytest.mark.parametrize("h", [0.01, 300.0])
@pytest.mark.parametrize(("m", "lead"), [(0.0, 1.0), (0.9, 0.3), (0.9, 0.7), (0.9, 1.0), (0.9, 1.9), (0.5, 5.0)])
def test_largest_stable_lr_with_momentum_is_where_an_eigenvalue_leaves_the_unit_disc(
    m: float, lead: float, h: float
) -> None:
    limit = largest_stable_lr(h, momentum=m, lead=lead)

    def radius(eta: float) -> float:
        gamma = eta**0.5
        return max(spectral_radius(gamma, (1 - m) / gamma, lead * gamma, c * h) for c in (1e-3, 0.1, 0.5, 0.9, 1.0))

    assert max(radius(fraction * limit) for fraction in (1e-3, 0.1, 0.5, 0.9, 0.999)) <= 1 + 1e-9
    assert radius(1.001 * limit) > 1


@pytest.mark.fast
def test_largest_stable_lr_of_extreme_curvatures() -> None:
    assert largest_stable_lr(1e200, alpha=0.5, beta=0.1) == pytest.approx(2e-199, rel=1e-12, abs=0)
    assert largest_stable_lr(1e-200, alpha=0.5, beta=0.1) == pytest.approx(4.0, rel=1e-12)


@pytest.mark.fast
def test_energy_of_any_namespace() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    found = energy(strict.asarray(1.0), [strict.ones(3), strict.ones(2)], alpha=0.5, beta=2.0)
    assert float(found) == 9.0


@pytest.mark.fast
def test_energy_of_complex_velocities_takes_their_modulus() -> None:
    assert energy(0.0, [np.asarray([3j, 4.0])], alpha=0.5, beta=0.1) == 25.0


@pytest.mark.fast
def test_energy_decreases_along_the_dynamics() -> None:
    h = np.asarray([0.3, 1.0, 4.0])
    inna, theta = INNA(0.5, 0.1), np.asarray([1.0, -2.0, 0.5])
    state, energies = inna.init(theta), []
    for _ in range(4000):
        energies.append(float(energy((h * theta**2).sum() / 2, [state.velocity], alpha=0.5, beta=0.1)))
        delta, state = inna.update(h * theta, state, theta, 1e-3)
        theta = theta + delta
    assert np.all(np.diff(energies) < 0)
    assert energies[0] == pytest.approx(2 * 1.05 * 2.65, rel=1e-12)


SETTINGS = 1000
SMALL, LARGE = 1e-6, 1e6
"""Of the distance at the start: what counts as converged, and as diverged."""

MOST_STEPS = 100_000


def random_settings(form: str) -> list[tuple[float, dict[str, float]]]:
    """Return sharpnesses and hyperparameters, two decades of each or what its range allows."""
    rng = np.random.default_rng(0)
    sharpness, first, second = np.exp(rng.uniform(np.log(0.1), np.log(10.0), (3, SETTINGS)))
    names = ("alpha", "beta")
    if form == "momentum and lead":
        names, first = ("momentum", "lead"), rng.uniform(0.0, 0.9, SETTINGS)
    rows = np.stack([sharpness, first, second], axis=1).tolist()
    return [(h, dict(zip(names, given, strict=True))) for h, *given in rows]


def worst_curvature(sharpness: float, given: dict[str, float], lr: float) -> float:
    """Return the largest curvature in (0, sharpness] that grows at least half as fast as any, at an unstable lr.

    By the eigenvalues, from trace and determinant. The very fastest may be the flattest of all, along which a stable
    run takes forever.
    """
    by = INNA(**given).coefficients(lr)
    gamma, beta, forget = float(by.gamma), float(by.beta), float(by.alpha_gamma)
    h = sharpness * np.geomspace(1e-4, 1.0, 200)
    trace, determinant = 2 - gamma * beta * h - forget, 1 - gamma * beta * h - forget + gamma**2 * h
    radius = (np.abs(trace) + np.sqrt(np.maximum(trace**2 - 4 * determinant, 0))) / 2
    radius = np.maximum(radius, np.sqrt(np.maximum(determinant, 0)))  # complex pairs
    return float(h[radius - 1 >= (radius.max() - 1) / 2].max())


def outcomes(curvatures: Sequence[float], coefficients: Sequence[Coefficients]) -> np.ndarray:
    """Run the core's step on h theta^2 / 2 for all settings side by side, each until its outcome is clear.

    Returns:
        By setting: -1 where theta and v have shrunk to `SMALL` of the start, 1 where they have grown to `LARGE` times
        it, 0 where neither happened.
    """
    h, by = np.asarray(curvatures), np.asarray(coefficients)
    theta, v = np.ones_like(h), np.zeros_like(h)
    left, found = np.arange(len(h)), np.zeros(len(h), dtype=int)
    for k in range(MOST_STEPS):
        delta, v = inertial_step(h * theta, v, Coefficients(*by.T))
        theta = theta + delta
        if k % 50 == 0:
            distance = np.maximum(np.abs(theta), np.abs(v))
            decided = (distance < SMALL) | (distance > LARGE)
            found[left[decided]] = np.where(distance[decided] > 1, 1, -1)
            h, by, theta, v, left = (part[~decided] for part in (h, by, theta, v, left))
            if not len(left):
                break
    return found


@pytest.mark.parametrize("form", ["dampings", "momentum and lead"])
def test_runs_converge_below_the_limit_and_diverge_above(form: str) -> None:
    """Of 1,000 random settings each, at 0.99 and 1.01 of the limit, at the curvature that binds it."""
    settings = random_settings(form)
    limits = [largest_stable_lr(h, **given) for h, given in settings]
    worst = [worst_curvature(h, given, 1.01 * limit) for (h, given), limit in zip(settings, limits, strict=True)]
    for share, curvatures, expected in (
        (0.99, worst, -1),
        (0.99, [h for h, _ in settings], -1),
        (1.01, worst, 1),
    ):
        steps = [INNA(**given).coefficients(share * limit) for (_, given), limit in zip(settings, limits, strict=True)]
        found = outcomes(curvatures, steps)
        wrong = [(settings[i], curvatures[i], found[i]) for i in np.flatnonzero(found != expected)]
        assert not wrong, (share, len(wrong), wrong[:3])


@dataclass(frozen=True)
class Landscape:
    """A smooth loss with many valleys: J = sum_i c_i cos(W_i theta + p_i) + s |theta|^2 / 2.

    Attributes:
        c, p: shape (n,).
        W: shape (n, d).
        s: >= 0.
    """

    c: np.ndarray
    W: np.ndarray
    p: np.ndarray
    s: float

    def loss(self, theta: np.ndarray) -> float:
        return float(self.c @ np.cos(self.W @ theta + self.p) + self.s * theta @ theta / 2)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        return -self.W.T @ (self.c * np.sin(self.W @ theta + self.p)) + self.s * theta


@dataclass(frozen=True)
class Flow:
    """A landscape, the two dampings and a start (theta, v), drawn at random."""

    landscape: Landscape
    alpha: float
    beta: float
    start: np.ndarray

    def motion(self, _: float, z: np.ndarray) -> np.ndarray:
        """Return the derivative of (theta, v, w), w the energy that friction has taken: the equation of motion."""
        theta, v = z[:-1].reshape(2, -1)
        g = self.landscape.gradient(theta)
        speed = v - self.beta * g
        force = -self.alpha * v - (1 - self.alpha * self.beta) * g
        return np.concatenate([speed, force, [2 * self.alpha * speed @ speed + 2 * self.beta * g @ g]])

    def energy(self, z: np.ndarray) -> float:
        theta, v = z[:-1].reshape(2, -1)
        return float(energy(self.landscape.loss(theta), [v], alpha=self.alpha, beta=self.beta))


def random_flow(seed: int) -> Flow:
    rng = np.random.default_rng(seed)
    n, d = 4, int(rng.integers(1, 4))
    landscape = Landscape(
        rng.normal(size=n), 2 * rng.normal(size=(n, d)), rng.uniform(0, 2 * np.pi, n), float(rng.uniform(0, 1))
    )
    alpha, beta = np.exp(rng.uniform(np.log(0.01), np.log(5.0), 2))
    start = np.concatenate([2 * rng.normal(size=2 * d), [0.0]])
    return Flow(landscape, float(alpha), float(beta), start)


@pytest.mark.parametrize(
    "seeds", [range(50), pytest.param(range(50, 1000), marks=pytest.mark.nightly)], ids=["50 flows", "950 more"]
)
def test_the_energy_never_increases_along_the_flow(seeds: range) -> None:
    """And what is missing is what friction took: E(0) - E(t) is the integral of 2 alpha |theta'|^2 + 2 beta |grad J|^2.

    SciPy integrates with a relative error of 1e-10 a step.
    """
    integrate = pytest.importorskip("scipy.integrate", reason="SciPy is not installed")
    for seed in seeds:
        flow = random_flow(seed)
        times = np.linspace(0, 6, 121)
        done = integrate.solve_ivp(
            flow.motion, (0, 6), flow.start, method="DOP853", t_eval=times, rtol=1e-10, atol=1e-10
        )
        assert done.success, seed
        energies = np.asarray([flow.energy(z) for z in done.y.T])
        error = 1e-7 * (1 + np.abs(energies).max())
        assert np.diff(energies).max() <= error, seed
        np.testing.assert_allclose(energies[0] - energies, done.y[-1], rtol=0, atol=error, err_msg=str(seed))
        assert done.y[-1, -1] > 1e3 * error, seed  # it had something to lose
