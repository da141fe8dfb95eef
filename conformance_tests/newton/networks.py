"""A multilayer perceptron and a convolutional network, as weights, direction and data that every host can evaluate."""

from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 2e-4
"""Between the points of a difference quotient, in units of the direction."""

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Positions and weights of the five-point difference quotient; its error is O(STEP^4)."""

SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "mlp": ((6, 8), (8,), (8, 5), (5,), (5, 4), (4,)),
    "cnn": (
        (3, 3, 2, 3),
        (3,),
        (48, 4),
        (4,),
    ),  # convolution kernels are (height, width, in, out), images (.., channels)
}

INPUTS = {"mlp": (7, 6), "cnn": (5, 6, 6, 2)}


def problem(network: str) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
    """Return weights, direction, inputs and one-hot targets."""
    rng = np.random.default_rng(7)
    weights = [rng.normal(0, 0.5, shape) for shape in SHAPES[network]]
    direction = [rng.normal(0, 0.5, shape) for shape in SHAPES[network]]
    x = rng.normal(0, 1, INPUTS[network])
    return weights, direction, x, np.eye(4)[rng.integers(0, 4, len(x))]


def largest_errors(evaluate: Callable[[int, float], tuple[float, Any]], size: int) -> tuple[float, float, float]:
    """Return how far g, H and T are from difference quotients of the loss, of g and of H, relative to their largest.

    Args:
        evaluate: returns loss and summary (NumPy arrays) after a move of group s by a multiple of the direction.
        size: S.
    """
    _, here = evaluate(0, 0.0)
    g, H, T = (np.zeros_like(x) for x in here)
    for s in range(size):
        for position, weight in STENCIL:
            loss, there = evaluate(s, position * STEP)
            g[s] += weight * loss / STEP
            H[s] += weight * there[0] / STEP
            T[s] += weight * there[1][s, s] / STEP
    errors = [np.max(np.abs(a - b)) / (np.max(np.abs(a)) + 1e-12) for a, b in zip((g, H, T), here, strict=True)]
    return errors[0], errors[1], errors[2]
