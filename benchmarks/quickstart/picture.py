"""Loss curves and deviations of all hosts, side by side."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.quickstart.bounds import DEVIATION, deviations
from benchmarks.quickstart.processes import Trajectory

# A difference of exactly zero has no place on a logarithmic axis; float64 cannot show less than this one.
FLOOR = 1e-17


def draw(trajectories: Sequence[Trajectory], reference: Trajectory, path: Path) -> None:
    """Write the picture.

    Args:
        trajectories: of all hosts, the reference among them.
        reference: what the deviations are from.
        path: PNG file to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), dpi=120, layout="constrained")
    colours = plt.get_cmap("tab10")
    count = len(trajectories)
    for i, trajectory in enumerate(trajectories):
        colour = colours(i % colours.N)
        # Curves that lie on each other: each next one is thinner, so that those below stay visible at its sides.
        below = count - 1 - i
        epochs = np.arange(1, len(trajectory.losses) + 1)
        left.plot(epochs, trajectory.losses, color=colour, linewidth=1.5 + 2 * below, label=trajectory.host)
        if trajectory is not reference:
            shown = np.maximum(deviations(trajectory, reference), FLOOR)
            right.plot(trajectory.steps, shown, color=colour, linewidth=1.2 + 0.5 * below, label=trajectory.host)

    left.set(xlabel="epoch", ylabel="mean training loss of the epoch", yscale="log", title="Training loss")
    left.legend(title="hosts, from below to the top", handlelength=3, labelspacing=0.8)
    right.axhline(DEVIATION, color="black", linestyle="--", linewidth=1.4, label=f"bound: {DEVIATION:.0e}")
    right.set(
        xlabel="step",
        ylabel=r"max $|\theta - \theta_{\mathrm{NumPy}}|$ / max $|\theta_{\mathrm{NumPy}}|$",
        yscale="log",
        title=f"Deviation from {reference.host}, float64",
        ylim=(FLOOR, None),
    )
    right.legend(loc="center right", handlelength=3)
    for axes in (left, right):
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.suptitle("INNA on scikit-learn's digits: same initial weights, same batches, each host's own gradients")
    figure.savefig(path)
    plt.close(figure)
