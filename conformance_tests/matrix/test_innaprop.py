"""INNAprop against the recurrence as its paper and code print it, in 50-digit arithmetic."""

from functools import cache
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import Setup, decaying, random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import row, tier_of_property
from conformance_tests.matrix.table import BY_NAME, HOSTS

ALGORITHM = "INNAprop"
HYPER = dict(BY_NAME[ALGORITHM].hyper)
N_STEPS = 200
SHAPES = ((20,),)


def published(setup: Setup, theta: Any, grads: list[Any]) -> list[Any]:
    """The two printed lines, which divide by beta - gamma; decay, if any, shrinks theta first and leaves psi."""
    hyper = {name: mpmath.mpf(value) for name, value in setup.hyper.items()}
    alpha, beta, sigma, eps = hyper["alpha"], hyper["beta"], hyper["sigma"], hyper["eps"]
    decay = mpmath.mpf(setup.weight_decay)
    psi, s, iterates = (1 - alpha * beta) * theta, 0 * theta, [theta]
    for k, g in enumerate(grads):
        gamma = mpmath.mpf(setup.lr(k))
        theta = (1 - gamma * decay) * theta
        q, s = oracle.scaled_gradient(g, s, k, sigma, eps)
        psi = (1 - gamma / beta) * psi + gamma * (1 / beta - alpha) * theta
        theta = (
            (1 + gamma * (1 - alpha * beta) / (beta - gamma)) * theta - gamma / (beta - gamma) * psi - gamma * beta * q
        )
        iterates.append(theta)
    return iterates


def setup_of(damping: tuple[float, float], schedule: str, decay: float) -> Setup:
    hyper = {**HYPER, "alpha": damping[0], "beta": damping[1]}
    return Setup(ALGORITHM, hyper, SCHEDULES[schedule], "float64", decay, published_decay=decay > 0)


def problem() -> tuple[np.ndarray, list[np.ndarray]]:
    return random_arrays(0, SHAPES)[0], [random_arrays(100 + k, SHAPES)[0] for k in range(N_STEPS)]


@cache
def wanted(damping: tuple[float, float], schedule: str, decay: float) -> list[Any]:
    theta, grads = problem()
    return published(setup_of(damping, schedule, decay), oracle.exact(theta), [oracle.exact(g) for g in grads])


DAMPINGS = [(0.1, 0.9), (1.0, 1.0), (2.0, 2.0)]
SCHEDULES = {"constant": (0.01,), "decaying": decaying(0.1, 0.25, N_STEPS)}
ALL_SETTINGS = {"numpy": "fast", "torch": "nightly"}
"""By host: the tier of the settings that differ only in numbers; every host runs the published ones, with decay."""


def rows() -> list[Any]:
    found = []
    for host in HOSTS:
        for damping, schedule, decay in product(DAMPINGS, SCHEDULES, (0.0, 0.1)):
            default = damping == DAMPINGS[0] and schedule == "decaying"
            if "float64" in host.dtypes and (default or host.name in ALL_SETTINGS):
                tier = tier_of_property(host) if default and decay else ALL_SETTINGS.get(host.name, "nightly")
                found.append(row(host, damping, schedule, decay, id=f"{damping}-{schedule}-decay {decay}", tier=tier))
    return found


@pytest.mark.parametrize(("host", "damping", "schedule", "decay"), rows())
def test_200_steps_follow_the_published_recurrence(
    host: Host, damping: Any, schedule: str, decay: float, open_run: Any
) -> None:
    """200 steps, with the published decay where there is decay, within 1e-11."""
    theta, grads = problem()
    want = wanted(damping, schedule, decay)
    run = open_run(host, setup_of(damping, schedule, decay), [theta])
    for g in grads:
        run.step([g])
    error = oracle.largest(oracle.exact(run.read().params[0]) - want[-1])
    assert error <= 1e-11 * oracle.largest(want[-1])
    # without its decay the published trajectory is another one
    assert oracle.largest(want[-1] - want[0]) > 0.1


@pytest.mark.parametrize("host", [row(host, tier=tier_of_property(host)) for host in HOSTS])
def test_steps_at_lr_beta_and_beyond_are_finite(host: Host, open_run: Any) -> None:
    for lr in (0.9, 1.7):
        run = open_run(host, Setup(ALGORITHM, HYPER, (lr,), host.wide), random_arrays(0, SHAPES))
        for k in range(3):
            run.step(random_arrays(k, SHAPES, host.wide))
        assert all(np.isfinite(x).all() for x in run.read().params)
