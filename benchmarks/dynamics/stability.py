"""Where INNA is stable on a quadratic: measured, and by the limit that `inna_core.dynamics` returns."""

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.dynamics.look import Look
from benchmarks.dynamics.runs import growth
from inna_core import INNA
from inna_core.dynamics import largest_stable_lr

DAMPINGS = {"alpha": 0.5, "beta": 0.1}
LEADS = ({"momentum": 0.9, "lead": 1.0}, {"momentum": 0.9, "lead": 1.9}, {"momentum": 0.9, "lead": 5.0})
CURVATURES = np.geomspace(0.3, 3000, 90)
MEASURED_AT = np.geomspace(0.4, 2500, 16)


@cache
def measured_map() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return curvatures, step sizes, and the growth in a step for each pair."""
    h, lr = np.meshgrid(CURVATURES, np.geomspace(3e-4, 8, 90))
    return h, lr, growth(INNA(**DAMPINGS), h, lr, 400)


def measured_limits(**given: float) -> np.ndarray:
    """Return where runs begin to diverge, by bisection, at each of the curvatures `MEASURED_AT`."""
    low, high = np.full(len(MEASURED_AT), 1e-6), np.full(len(MEASURED_AT), 1e2)
    for _ in range(17):
        middle = np.sqrt(low * high)
        diverges = growth(INNA(**given), MEASURED_AT, middle, 1000) > 1
        low, high = np.where(diverges, low, middle), np.where(diverges, middle, high)
    return np.sqrt(low * high)


@cache
def measured() -> list[np.ndarray]:
    """Return the measured limits of the dampings and of each lead."""
    return [measured_limits(**given) for given in (DAMPINGS, *LEADS)]


def draw(look: Look) -> Any:
    """Return the figure: the map for two dampings, and the limits of three leads."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.9), layout="constrained")
    h, lr, factor = measured_map()
    colours = [*look.stable, look.unstable]
    bands = left.contourf(h, lr, factor, [0, 0.8, 0.95, 1, 1e9], colors=colours)
    limit = [largest_stable_lr(float(x), **DAMPINGS) for x in CURVATURES]
    left.plot(CURVATURES, limit, color=look.inna, linewidth=2, label="largest_stable_lr")
    left.plot(MEASURED_AT, measured()[0], "o", color=look.marks, markersize=4, label="measured")
    left.set(title="α = 0.5, β = 0.1", ylabel="lr γ (time)", ylim=(3e-4, 8), xlim=(0.3, 3000))
    left.text(2, 0.012, "converges", color=look.text)
    left.text(110, 1.5, "diverges", color=look.text)
    bar = figure.colorbar(bands, ax=left, label="distance after a step / before it", ticks=[0.8, 0.95, 1], pad=0.02)
    bar.ax.set_yticklabels(["0.8", "0.95", "1"])
    colour = (look.heavy_ball, look.nesterov, look.inna)
    names = ("heavy ball: lead 1", "Nesterov: lead 1.9", "INNA: lead 5")
    for given, found, line, name in zip(LEADS, measured()[1:], colour, names, strict=True):
        right.plot(CURVATURES, [largest_stable_lr(float(x), **given) for x in CURVATURES], color=line, label=name)
        right.plot(MEASURED_AT, found, "o", color=look.marks, markersize=3.5)
    right.set(title="momentum 0.9", ylabel="lr η (time²)", xlim=(0.3, 3000))
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="curvature h (loss per unit of θ²)")
        axis.legend(loc="lower left", fontsize=8)
    return figure
