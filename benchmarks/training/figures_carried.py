"""Figures of the settings carried over and of the long runs."""

import math
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.training import gpu
from benchmarks.training.carried_scores import GPT_TASK, LONG_NAMES, curve, finals_of
from benchmarks.training.long_tasks import LONG
from benchmarks.training.results import Store
from benchmarks.training.tasks import TASKS
from benchmarks.training.transfer import BY_NAME

SHOWN = {
    "adamw": {"color": "black", "linestyle": "--"},
    "nadam": {"color": "tab:green", "linestyle": ":"},
    "innaprop-lead-1": {"color": "tab:gray"},
    "innaprop-lead-m": {"color": "tab:blue", "linewidth": 2},
    "innaprop-lead-3": {"color": "tab:red", "linewidth": 2},
}


def carried(store: Store) -> Any:
    """Return the mean validation loss from AdamW's settings, a panel for each task, the short ones first."""
    titles = {
        **{name: task.title for name, task in TASKS.items()},
        **{name: LONG[name].task.title for name in (GPT_TASK, "gpt-10000", "mnist-20")},
        **{network.task: f"{network.title}, on a GPU" for network in gpu.NETWORKS.values()},
    }
    tasks = [task for task in titles if finals_of(store, task, "adamw")]
    columns = 4
    rows = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 3.2 * rows), dpi=90, squeeze=False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        seeds = {final["seed"] for final in finals_of(store, task, "adamw")}
        for name, style in SHOWN.items():
            finals = finals_of(store, task, name if task in TASKS else LONG_NAMES[name])
            if {final["seed"] for final in finals} == seeds:  # a curve of other seeds would mislead
                mean = curve(finals)
                axis.plot(mean.steps, mean.losses, label=BY_NAME[name].title, **style)
        last = curve(finals_of(store, task, "adamw")).last
        axis.axhline(last, color="black", linewidth=0.6)
        axis.set(title=titles[task], xlabel="step", yscale="log")
        seen = [
            y for line in axis.lines[:-1] for y in line.get_ydata()[len(line.get_ydata()) // 8 :] if math.isfinite(y)
        ]
        axis.set_ylim(0.97 * min(seen), 1.03 * max(seen))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if max(seen) < 10 * min(seen) else "")
        axis.tick_params(axis="y", which="both", labelsize=7)
        axis.grid(visible=True, which="both", alpha=0.25)
    for axis in list(axes.flat)[len(tasks) :]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.set_layout_engine("constrained")
    figure.suptitle("AdamW's settings carried over, nothing tuned: mean validation loss; AdamW's last one in black")
    return figure
