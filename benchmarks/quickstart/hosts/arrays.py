"""INNA on plain arrays (NumPy, CuPy), with the gradient derived by hand: the reference of all other hosts."""

from importlib import import_module
from typing import Any

import numpy as np
from array_api_compat import to_device

import inna_core
from benchmarks.quickstart.problem import DECAY, LR, Problem
from benchmarks.quickstart.recording import Recorder, Trained, UnavailableError

Array = Any


def scores(xp: Any, weights: list[Array], x: Array) -> Array:
    """Return the network's outputs before the softmax."""
    w1, b1, w2, b2 = weights
    a = x @ w1 + b1
    return (a * sigmoid(xp, a)) @ w2 + b2


def sigmoid(xp: Any, a: Array) -> Array:
    return 1 / (1 + xp.exp(-a))


def loss_and_gradient(xp: Any, weights: list[Array], x: Array, targets: Array) -> tuple[Array, list[Array]]:
    """Return the mean cross-entropy of a batch, and its gradient.

    Args:
        xp: array namespace.
        weights: W1, b1, W2, b2.
        x: images, one per row.
        targets: labels as rows of the identity matrix.

    Returns:
        The loss, a 0-d array, and one array for each of the weights.
    """
    w1, b1, w2, b2 = weights
    a = x @ w1 + b1
    s = sigmoid(xp, a)
    hidden = a * s
    z = hidden @ w2 + b2
    z = z - xp.max(z, axis=1, keepdims=True)
    log_p = z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
    loss = -xp.sum(targets * log_p) / x.shape[0]

    d_z = (xp.exp(log_p) - targets) / x.shape[0]
    d_a = (d_z @ w2.T) * (s + hidden * (1 - s))
    return loss, [x.T @ d_a, xp.sum(d_a, axis=0), hidden.T @ d_z, xp.sum(d_z, axis=0)]


def train(option: str, problem: Problem, recorder: Recorder) -> Trained:
    """Train on the arrays of a library.

    Args:
        option: the library, as array_api_compat names it.
        problem: data, initial weights and batches.
        recorder: is told every step and epoch.
    """
    xp = import_module(f"array_api_compat.{option}")
    try:
        device = xp.__array_namespace_info__().devices()[0]
    except RuntimeError as error:  # CuPy's way to say that there is no GPU, or no driver
        raise UnavailableError(f"{option} finds no device: {error}") from error

    weights = [xp.asarray(w) for w in problem.weights]
    x, targets = xp.asarray(problem.x), xp.asarray(np.eye(problem.b2.size)[problem.y])
    batches = xp.asarray(problem.batches)
    inna, schedule = inna_core.INNA(), inna_core.schedules.PowerDecay(LR, DECAY)
    states = [inna.init(w) for w in weights]
    step = 0
    for epoch in range(batches.shape[0]):
        total = 0.0
        for batch in batches[epoch]:
            loss, gradient = loss_and_gradient(xp, weights, x[batch], targets[batch])
            total = total + loss
            for i, g in enumerate(gradient):
                delta, states[i] = inna.update(g, states[i], weights[i], lr=schedule(step))
                weights[i] = weights[i] + delta
            step += 1
            recorder.step(lambda: [to_device(w, "cpu") for w in weights])
        recorder.epoch(total / batches.shape[1])
    return Trained(str(device), to_device(scores(xp, weights, xp.asarray(problem.x_test)), "cpu"))
