"""The valley of the paper's figure 1, J(x, y) = 100 (y - |x|)^2 + |1 - x|, curved at 0, with its minimum at (1, 1)."""

from typing import Any

import numpy as np

from benchmarks.dynamics.look import Look

START = (-1.5, 2.0)
LEVELS = (0.5, 1, 2, 3, 5, 10, 20, 40, 80, 160, 320)
"""Of the contour lines."""


def loss(theta: np.ndarray) -> np.ndarray:
    """Return J of points, shape (..., 2)."""
    x, y = theta[..., 0], theta[..., 1]
    return 100 * (y - np.abs(x)) ** 2 + np.abs(1 - x)


def gradient(theta: np.ndarray) -> np.ndarray:
    """Return a subgradient at one point, with sign(0) = 0 at the kinks."""
    x, y = theta
    across = 200 * (y - np.abs(x))
    return np.asarray([-across * np.sign(x) + np.sign(x - 1), across])


def across(theta: np.ndarray) -> np.ndarray:
    """Return the distance from the floor of the valley, y - |x|."""
    return theta[..., 1] - np.abs(theta[..., 0])


def portrait(axis: Any, look: Look, theta: np.ndarray, colour: str) -> None:
    """Draw the valley's contour lines and a run through it."""
    for level in LEVELS:  # |y - |x|| = sqrt((level - |1 - x|) / 100)
        x = np.unique([*np.linspace(max(1 - level, -2.2), min(1 + level, 2.0), 200), 0.0])
        x = x[np.abs(1 - x) <= level]
        width = np.sqrt((level - np.abs(1 - x)) / 100)
        for y in (np.abs(x) + width, np.abs(x) - width):
            axis.plot(x, y, color=look.faint, linewidth=0.7)
    axis.plot(*theta.T, color=colour)
    axis.plot(*START, "o", color=look.marks, markersize=4)
    axis.plot(1, 1, "*", color=look.marks, markersize=9)
    axis.set(xlabel="x", ylabel="y", aspect="equal", xlim=(-2.1, 1.9), ylim=(-0.35, 2.25))
    axis.set(xticks=[-2, -1, 0, 1], yticks=[0, 1, 2])
