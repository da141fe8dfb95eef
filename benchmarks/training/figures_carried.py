"""The figure of the settings carried over and of the long runs."""

import math
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.training import gpu
from benchmarks.training.carried_scores import GPT_TASK, TITLES, finals_of
from benchmarks.training.results import Store
from benchmarks.training.scores import curve
from benchmarks.training.tasks import TASKS
from benchmarks.training.transfer import BY_NAME

STYLES = {
    "adamw": {"color": "black", "linestyle": "--"},
    "nadam": {"color": "tab:green", "linestyle": ":"},
    "innaprop-lead-1": {"color": "tab:gray"},
    "innaprop-lead-m": {"color": "tab:blue", "linewidth": 2},
    "innaprop-lead-3": {"color": "tab:red", "linewidth": 2},
}


def carried(store: Store) -> Any:
    """Return the mean validation loss from AdamW's settings, a panel for each task, the short ones first."""
    shown = (*TASKS, GPT_TASK, "gpt-10000", "mnist-20", *(network.task for network in gpu.NETWORKS.values()))
    tasks = [task for task in shown if finals_of(store, task, "adamw")]
    columns = 4
    rows = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 3.2 * rows), dpi=90, squeeze=False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        adamw = finals_of(store, task, "adamw")
        for name, style in STYLES.items():
            finals = finals_of(store, task, name)
            if {f["seed"] for f in finals} == {f["seed"] for f in adamw}:  # a curve of other seeds would mislead
                mean = curve(finals)
                axis.plot(mean.steps, mean.losses, label=BY_NAME[name].title, **style)
        axis.axhline(curve(adamw).last, color="black", linewidth=0.6)
        axis.set(title=TITLES[task], xlabel="step", yscale="log")
        late = [line.get_ydata()[len(line.get_ydata()) // 8 :] for line in axis.lines[:-1]]
        losses = [loss for line in late for loss in line if math.isfinite(loss)]
        axis.set_ylim(0.97 * min(losses), 1.03 * max(losses))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if max(losses) < 10 * min(losses) else "")
        axis.tick_params(axis="y", which="both", labelsize=7)
        axis.grid(visible=True, which="both", alpha=0.25)
    for axis in list(axes.flat)[len(tasks) :]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.set_layout_engine("constrained")
    figure.suptitle("AdamW's settings carried over, nothing tuned: mean validation loss; AdamW's last one in black")
    return figure
