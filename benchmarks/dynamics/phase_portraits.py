"""INNA in the paper's valley, for three pairs of dampings."""

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.dynamics import valley
from benchmarks.dynamics.look import Look
from benchmarks.dynamics.runs import Run, run_inna
from inna_core import INNA

DAMPINGS = ((0.5, 0.01), (0.5, 0.1), (1.3, 0.1))
LR, DURATION = 0.002, 12.0


@cache
def runs() -> dict[tuple[float, float], Run]:
    """Return a run for each pair of alpha and beta."""
    steps = round(DURATION / LR)
    return {
        (alpha, beta): run_inna(INNA(alpha, beta), valley.gradient, valley.START, LR, steps) for alpha, beta in DAMPINGS
    }


def draw(look: Look) -> Any:
    """Return the figure: the path, and the motion across and along the valley, a column for each pair."""
    figure, axes = plt.subplots(
        3, 3, figsize=(8.4, 6.8), sharey="row", layout="constrained", height_ratios=(4, 2.6, 2.6)
    )
    for column, ((alpha, beta), run) in zip(axes.T, runs().items(), strict=True):
        path, across, along = column
        time = LR * np.arange(len(run.theta))
        valley.portrait(path, look, run.theta, look.inna)
        path.set_title(f"α = {alpha:g}, β = {beta:g}")
        early = time <= 3
        across.plot(time[early], valley.across(run.theta[early]), color=look.inna)
        across.set(xlabel="time t = k lr", xticks=[0, 1, 2, 3])
        along.plot(time, run.theta[:, 0], color=look.inna)
        along.axhline(1, color=look.faint, linewidth=0.7)
        along.set(xlabel="time t = k lr", xticks=[0, 3, 6, 9, 12])
    axes[1, 0].set_ylabel("across: y − |x|")
    axes[2, 0].set_ylabel("along: x")
    for axis in axes[0, 1:]:
        axis.set_ylabel("")
    return figure
