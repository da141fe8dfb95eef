"""Heavy ball, Nesterov's momentum and INNA with more lead in the same valley, with the same lr and momentum."""

from functools import cache
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.dynamics import valley
from benchmarks.dynamics.look import Look
from benchmarks.dynamics.runs import Run, run_inna, run_momentum
from inna_core import INNA

LR, MOMENTUM, LEAD, STEPS = 2e-4, 0.99, 8.0, 800


@cache
def runs() -> dict[str, Run]:
    """Return the runs by name; the first two are written without INNA, as in `torch.optim.SGD`."""

    def sgd(nesterov: bool) -> Run:
        return run_momentum(valley.gradient, valley.START, LR, MOMENTUM, STEPS, nesterov)

    inna = INNA(momentum=MOMENTUM, lead=LEAD)
    return {
        "heavy ball": sgd(nesterov=False),
        "Nesterov": sgd(nesterov=True),
        f"INNA, lead {LEAD:g}": run_inna(inna, valley.gradient, valley.START, LR, STEPS),
    }


def draw(look: Look) -> Any:
    """Return the figure: the three paths, the motion across the valley, and the loss."""
    figure = plt.figure(figsize=(8.4, 5.4), layout="constrained")
    axes = figure.subplot_mosaic([[0, 0, 1, 1, 2, 2], ["across"] * 3 + ["loss"] * 3], height_ratios=(4, 4))
    colours = (look.heavy_ball, look.nesterov, look.inna)
    for i, ((name, run), colour) in enumerate(zip(runs().items(), colours, strict=True)):
        valley.portrait(axes[i], look, run.theta, colour)
        axes[i].set(title=name, ylabel="y" if i == 0 else "")
        axes["across"].plot(valley.across(run.theta[:200]), color=colour, label=name)
        axes["loss"].plot(valley.loss(run.theta), color=colour, label=name)
    axes["across"].set(xlabel="step k", ylabel="across: y − |x|")
    axes["across"].legend(loc="upper right", fontsize=8)
    axes["loss"].set(xlabel="step k", ylabel="loss J", yscale="log", ylim=(0.01, 60))
    return figure
