"""A multilayer perceptron and a convolutional network, as weights, direction, data and losses that all hosts share."""

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance_tests.distances import largest

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


def torch_loss(network: str, x: np.ndarray, y: np.ndarray) -> Callable[[list[Any]], Any]:
    import torch

    inputs, targets = torch.tensor(x), torch.tensor(y)

    def loss(p: list[Any]) -> Any:
        if network == "mlp":
            out = torch.tanh(torch.tanh(inputs @ p[0] + p[1]) @ p[2] + p[3]) @ p[4] + p[5]
        else:
            images = torch.nn.functional.conv2d(inputs.permute(0, 3, 1, 2), p[0].permute(3, 2, 0, 1), p[1])
            out = torch.tanh(images).permute(0, 2, 3, 1).flatten(1) @ p[2] + p[3]
        return -(targets * torch.log_softmax(out, -1)).sum(-1).mean()

    return loss


def jax_loss(network: str, x: np.ndarray, y: np.ndarray) -> Callable[[list[Any]], Any]:
    import jax
    import jax.numpy as jnp

    def loss(p: list[Any]) -> Any:
        if network == "mlp":
            out = jnp.tanh(jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3]) @ p[4] + p[5]
        else:
            images = jax.lax.conv_general_dilated(
                jnp.asarray(x), p[0], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            out = jnp.tanh(images + p[1]).reshape(len(x), -1) @ p[2] + p[3]
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(out), axis=-1))

    return loss


def torch_summary(network: str, order: int = 3) -> list[np.ndarray]:
    """Return torch's summary of order 3, of which order 2 has no third derivatives."""
    import torch

    from inna_torch import summary

    weights, direction, x, y = problem(network)
    found = summary(torch_loss(network, x, y), [torch.tensor(w) for w in weights], [torch.tensor(u) for u in direction])
    gradient, hessian, third = (a.numpy() for a in found)
    return [gradient, hessian, third if order == 3 else 0 * third]


def closeness(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    return largest(float(np.max(np.abs(a - b)) / (np.max(np.abs(b)) + 1e-12)) for a, b in zip(got, want, strict=True))
