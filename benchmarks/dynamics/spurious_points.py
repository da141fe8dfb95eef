"""A point at which the mini-batches' subgradients vanish and the loss falls, and runs that come by it.

    J_1(x) = 2 relu(x)        J_2(x) = -2 relu(-x) + relu(-x)^2 / 2        J = (J_1 + J_2) / 2

J is x for x >= 0 and x + x^2 / 4 below: it has the slope 1 at 0 and its only critical point at -2. But automatic
differentiation, which takes 0 for the slope of relu at 0, finds the slope 0 of both parts there.
"""

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.dynamics.look import Look
from benchmarks.dynamics.runs import Run, run_inna, run_momentum
from inna_core import INNA

ALPHA, BETA, LR, STEPS = 0.5, 0.25, 0.25, 60
"""Powers of 2, so that sums of a few steps are exact and a run can be made to land on 0 itself."""

MINIMUM = -2.0


def part_1(x: np.ndarray) -> np.ndarray:
    return 2 * np.maximum(x, 0)


def part_2(x: np.ndarray) -> np.ndarray:
    return -2 * np.maximum(-x, 0) + np.maximum(-x, 0) ** 2 / 2


def slope_1(x: np.ndarray) -> np.ndarray:
    """Return what automatic differentiation finds: the slope of relu is 1 above 0, else 0."""
    return 2.0 * (x > 0)


def slope_2(x: np.ndarray) -> np.ndarray:
    return 2.0 * (x < 0) - np.maximum(-x, 0)


def slope(x: np.ndarray) -> np.ndarray:
    """Return the mean of the two parts' slopes."""
    return (slope_1(x) + slope_2(x)) / 2


def runs_that_land_on_0() -> tuple[Run, Run]:
    """Return runs of gradient descent and INNA that arrive at 0 exactly, both after four steps."""
    descent = run_momentum(slope, [4 * LR], LR, 0.0, STEPS, nesterov=False)
    inna = INNA(ALPHA, BETA)
    far = run_inna(inna, slope, [64.0], LR, 4).theta
    return descent, run_inna(inna, slope, far[0] - far[4], LR, STEPS)  # the slope is 1 all the way


@cache
def runs() -> dict[str, np.ndarray]:
    """Return the paths x of all runs, by what they are called in the figure."""
    inna, rng = INNA(ALPHA, BETA), np.random.default_rng(0)
    descent, landed = runs_that_land_on_0()

    def of_one_part(x: np.ndarray) -> np.ndarray:
        return (slope_1, slope_2)[rng.integers(2)](x)

    batches = run_inna(inna, of_one_part, [1.5], LR / 4, 4 * STEPS)
    return {
        "gradient descent that lands on 0": descent.theta[:, 0],
        "INNA that lands on 0": landed.theta[:, 0],
        "INNA from rest at 0": run_inna(inna, slope, [0.0], LR, STEPS).theta[:, 0],
        "INNA, one part a step": batches.theta[::4, 0],
    }


def draw(look: Look) -> Any:
    """Return the figure: the loss and its parts, the slopes, and runs."""
    figure, (functions, slopes, paths) = plt.subplots(
        1, 3, figsize=(8.4, 3.4), width_ratios=(1, 1, 1.35), layout="constrained"
    )
    x = np.linspace(-4, 2, 301)
    functions.plot(x, part_1(x), color=look.text, linestyle="--", label="J₁")
    functions.plot(x, part_2(x), color=look.text, linestyle=":", label="J₂")
    functions.plot(x, (part_1(x) + part_2(x)) / 2, color=look.text, linewidth=2, label="J, their mean")
    functions.plot(MINIMUM, -1, "*", color=look.marks, markersize=9)
    functions.plot(0, 0, "o", color=look.marks, markersize=5)
    functions.set(title="loss", xlabel="x", ylim=(-2.3, 4))
    functions.legend(loc="upper left", fontsize=8)
    for side in (x[x < 0], x[x > 0]):
        slopes.plot(side, slope(side), color=look.text, linewidth=2)
    slopes.plot([0, 0], [0, 2], color=look.text, linewidth=5, alpha=0.4, solid_capstyle="butt")
    slopes.axhline(0, color=look.faint, linewidth=0.7)
    slopes.plot(MINIMUM, 0, "*", color=look.marks, markersize=9)
    slopes.plot(0, 0, "o", color=look.marks, markersize=5)
    for text, point, place in (
        ("sums of\nsubgradients", (0, 1.6), (-3.8, 1.5)),
        ("autograd", (0, 0), (-0.2, -0.75)),
    ):
        line = {"arrowstyle": "-", "color": look.text, "linewidth": 0.7}
        slopes.annotate(text, point, place, fontsize=8, arrowprops=line)
    slopes.set(title="slope of J", xlabel="x", ylim=(-1.2, 2.3))
    styles = (
        {"color": look.gradient_descent, "linewidth": 2.5},
        {"color": look.inna},
        {"color": look.inna, "linestyle": ":", "linewidth": 2.2},
        {"color": look.inna, "linewidth": 0.8},
    )
    for (name, path), style in zip(runs().items(), styles, strict=True):
        paths.plot(LR * np.arange(len(path)), path, label=name, **style)
    paths.axhline(MINIMUM, color=look.faint, linewidth=0.7)
    paths.set(title="runs", xlabel="time t = k lr", ylabel="x", ylim=(-3.6, 3.8))
    paths.legend(loc="upper right", fontsize=8)
    return figure
