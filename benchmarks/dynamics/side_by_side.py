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
    axes = figure.subplot_mosaic("001122;aaabbb")
    across, loss = axes["a"], axes["b"]
    colours = (look.heavy_ball, look.nesterov, look.inna)
    for place, (name, run), colour in zip("012", runs().items(), colours, strict=True):
        valley.portrait(axes[place], look, run.theta, colour)
        axes[place].set(title=name, ylabel="y" if place == "0" else "")
        across.plot(valley.across(run.theta[:200]), color=colour, label=name)
        loss.plot(valley.loss(run.theta), color=colour, label=name)
    across.set(xlabel="step k", ylabel="across: y − |x|")
    across.legend(loc="upper right", fontsize=8)
    loss.set(xlabel="step k", ylabel="loss J", yscale="log", ylim=(0.01, 60))
    return figure
