"""Energy and loss of a small network along its training, with all samples and with mini-batches."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.dynamics.look import Look
from inna_core import INNA
from inna_core.dynamics import energy

ALPHA = BETA = 0.1
SAMPLES, HIDDEN = 256, 16
X = np.linspace(-1, 1, SAMPLES)
Y = 0.8 * np.sin(3 * np.pi * X)


@dataclass(frozen=True)
class Training:
    """How to train: a title, the number of samples a step, the step size and the duration."""

    title: str
    batch: int
    lr: float
    duration: float


TRAININGS = (
    Training("all samples, lr 0.02", SAMPLES, 0.02, 40),
    Training("mini-batches of 16, lr 0.02", 16, 0.02, 40),
    Training("all samples, lr 0.2: too large", SAMPLES, 0.2, 20),
)


def start() -> np.ndarray:
    """Return random weights of a network of one hidden layer, 1-16-1, as one array."""
    rng = np.random.default_rng(1)
    scale = np.repeat([3.0, 1.0, HIDDEN**-0.5, 0.0], [HIDDEN, HIDDEN, HIDDEN, 1])
    return scale * rng.normal(size=3 * HIDDEN + 1)


def loss_and_gradient(theta: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
    """Return half the mean squared error of the network on a batch of samples, and its gradient."""
    weights, bias, out = theta[:-1].reshape(3, HIDDEN)
    x, n = X[batch], len(batch)
    active = np.tanh(np.outer(x, weights) + bias)
    error = active @ out + theta[-1] - Y[batch]
    back = np.outer(error, out) * (1 - active**2) / n
    gradient = np.concatenate([x @ back, back.sum(0), error @ active / n, [error.mean()]])
    return float(error @ error) / (2 * n), gradient


@cache
def curves(training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of all samples and the energy, in units of the loss, before each step."""
    everything, rng = np.arange(SAMPLES), np.random.default_rng(2)
    inna, theta = INNA(ALPHA, BETA), start()
    state, found = inna.init(theta), []
    for _ in range(round(training.duration / training.lr)):
        loss, gradient = loss_and_gradient(theta, everything)
        found.append((loss, energy(loss, [state.velocity], alpha=ALPHA, beta=BETA) / (2 * (1 + ALPHA * BETA))))
        if training.batch < SAMPLES:
            _, gradient = loss_and_gradient(theta, rng.choice(SAMPLES, training.batch, replace=False))
        delta, state = inna.update(gradient, state, theta, training.lr)
        theta = theta + delta
    losses, energies = np.asarray(found).T
    return losses, energies


def draw(look: Look) -> Any:
    """Return the figure, a panel for each way to train."""
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.3), layout="constrained")
    for axis, training in zip(axes, TRAININGS, strict=True):
        losses, energies = curves(training)
        time = training.lr * np.arange(len(losses))
        axis.plot(time, losses, color=look.inna, linewidth=1, label="loss J")
        axis.plot(time, energies, color=look.marks, linewidth=1.4, label="energy E / (2 + 2αβ)")
        axis.set(title=training.title, xlabel="time t = k lr", yscale="log")
    for axis in axes[:2]:
        axis.set(ylim=(0.08, 0.45), yticks=[0.1, 0.2, 0.4])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    axes[0].set_ylabel("loss and energy")
    axes[0].legend(loc="upper right", fontsize=8)
    return figure
