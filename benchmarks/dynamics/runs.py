"""Runs of INNA, and of the two methods that it is drawn beside, on NumPy arrays in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from inna_core import INNA
from inna_core.inna import inertial_step

Gradient = Callable[[np.ndarray], np.ndarray]


class Run(NamedTuple):
    """A run, its start first.

    Attributes:
        theta: parameters, shape (steps + 1, ...).
        velocity: INNA's v, or the steps of the other methods, of the same shape.
    """

    theta: np.ndarray
    velocity: np.ndarray


def run_inna(inna: INNA, gradient: Gradient, start: Any, lr: float, steps: int) -> Run:
    """Return a run of INNA at a constant step size."""
    theta = np.asarray(start, dtype=np.float64)
    state = inna.init(theta)
    run = [(theta, state.velocity)]
    for _ in range(steps):
        delta, state = inna.update(gradient(theta), state, theta, lr)
        theta = theta + delta
        run.append((theta, state.velocity))
    return Run(*(np.stack(part) for part in zip(*run, strict=True)))


def run_momentum(gradient: Gradient, start: Any, lr: float, momentum: float, steps: int, nesterov: bool) -> Run:
    """Return a run of the heavy ball or of Nesterov's momentum, written as in `torch.optim.SGD`."""
    theta = np.asarray(start, dtype=np.float64)
    buffer = np.zeros_like(theta)
    run = [(theta, buffer)]
    for _ in range(steps):
        g = gradient(theta)
        buffer = momentum * buffer + g
        step = -lr * (g + momentum * buffer if nesterov else buffer)
        theta = theta + step
        run.append((theta, step))
    return Run(*(np.stack(part) for part in zip(*run, strict=True)))


def growth(inna: INNA, curvature: Any, lr: Any, steps: int) -> np.ndarray:
    """Return by how much INNA's distance from the minimum of h theta^2 / 2 grows in a step, measured over a run.

    Args:
        inna: the algorithm.
        curvature, lr: h and the step size; arrays of one shape, a run for each entry.
        steps: of each run. The growth is that of its second half.

    Returns:
        The factor per step, below 1 where the run converges.
    """
    h, by = np.asarray(curvature), inna.coefficients(np.asarray(lr))
    theta, v = (np.multiply.outer(unit, np.ones_like(h)) for unit in np.eye(2))  # two starts
    total = np.zeros_like(h)
    for k in range(steps):
        delta, v = inertial_step(h * theta, v, by)
        theta = theta + delta
        size = np.sqrt((h * theta**2 + v**2).sum(0))
        theta, v = theta / size, v / size  # a step is linear, and nothing overflows
        total = total + np.log(size) * (k >= steps // 2)
    return np.exp(total / (steps - steps // 2))
