"""Problems for free-running trajectories: gradients by hand, in plain operators, at the host's own iterate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A loss given by its gradient.

    Attributes:
        name: of the row.
        start: returns the initial parameters, one float64 array each.
        gradient: maps a list of parameters to the list of gradients.
        lr: a step size at which INNA with default dampings converges.
        exact: whether the gradient also runs on arrays of mpmath numbers.
    """

    name: str
    start: Callable[[], list[np.ndarray]]
    gradient: Callable[[list[Any]], list[Any]]
    lr: float
    exact: bool


CURVATURES = (0.5, 1.0, 3.0, 10.0)


def quadratic(theta: list[Any]) -> list[Any]:
    return [x * np.asarray(CURVATURES) for x in theta]


def nonsmooth_rosenbrock(theta: list[Any]) -> list[Any]:
    """Subgradient of 100 (y - |x|)^2 + |1 - x|."""
    x, y = theta[0]
    sign = -1 if x < 0 else 1
    gap = y - sign * x
    return [np.asarray([-200 * sign * gap - (1 if x < 1 else -1), 200 * gap])]


@cache
def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer()
    x, y = data.data, data.target
    return (x - x.mean(0)) / x.std(0), y.astype(np.float64)


def logistic(theta: list[Any]) -> list[Any]:
    x, y = breast_cancer()
    w, b = theta
    residual = 1 / (1 + np.exp(-(x @ w + b))) - y
    return [x.T @ residual / len(y) + 1e-3 * w, residual.mean()]


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    x, y = data.data, data.target
    return x[:256] / 16.0, np.eye(10)[y[:256]]


def network(theta: list[Any]) -> list[Any]:
    """Gradient of softmax cross-entropy of a 64-16-10 tanh network on 256 digits."""
    x, y = digits()
    w1, b1, w2, b2 = theta
    hidden = np.tanh(x @ w1 + b1)
    logits = hidden @ w2 + b2
    p = np.exp(logits - logits.max(1, keepdims=True))
    d = (p / p.sum(1, keepdims=True) - y) / len(y)
    dh = (d @ w2.T) * (1 - hidden**2)
    return [x.T @ dh, dh.sum(0), hidden.T @ d, d.sum(0)]


def network_start() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1 / 8, (64, 16)), np.zeros(16), rng.normal(0, 1 / 4, (16, 10)), np.zeros(10)]


PROBLEMS: tuple[Problem, ...] = (
    Problem("quadratic", lambda: [np.asarray([1.0, -2.0, 0.5, 1.5])], quadratic, 0.1, True),
    Problem("nonsmooth-rosenbrock", lambda: [np.asarray([-1.5, 0.7])], nonsmooth_rosenbrock, 0.005, True),
    Problem("logistic-regression", lambda: [np.zeros(30), np.asarray(0.0)], logistic, 0.1, False),
    Problem("network", network_start, network, 0.1, False),
)
