"""The figures of the pages on training; each carries the digest of the results that it was made from."""

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from benchmarks.training import gpu
from benchmarks.training.carried_scores import GPT_TASK, TITLES, finals_of
from benchmarks.training.optimizers import OPTIMIZERS
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.scores import FAMILY, Results, curve, studies, target, tasks_of
from benchmarks.training.sweep import SWEEPS, finished
from benchmarks.training.tasks import TASKS
from benchmarks.training.transfer import BY_NAME


def digest(store: Store) -> str:
    """Return what the stored results hash to."""
    total = hashlib.sha256()
    for path in sorted(store.folder.glob("*.json")):
        total.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return total.hexdigest()


def draw(store: Store, folder: Path) -> list[Path]:
    """Write all figures for which there are results into a folder, as PNG files, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    results = studies(store)
    figures = {f"training-{regime}": curves(results, regime) for regime in REGIMES if tasks_of(results, regime)}
    sweeps = {task: finished(store, task, "alpha-beta") for task in TASKS}
    figures["training-alpha-beta"] = heat_maps({task: sweep for task, sweep in sweeps.items() if sweep})
    figures["training-carried"] = carried(store)
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], metadata={"Description": digest(store), "Software": None})
        plt.close(figure)
    return written


def curves(results: Results, regime: str) -> Any:
    """Return validation losses along the runs of the tuned optimizers, the median of the seeds."""
    tasks = tasks_of(results, regime)
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 3.6 * rows), dpi=90, squeeze=False)
    colours = plt.get_cmap("tab10")
    for axis, task in zip(axes.flat, tasks, strict=False):
        for i, (name, row) in enumerate(OPTIMIZERS.items()):
            if (task, regime, name) not in results:
                continue
            medians = curve(results[task, regime, name]["final"], statistics.median)
            style = {"linewidth": 2.2} if name in FAMILY else {"linewidth": 1.2, "linestyle": "--"}
            axis.plot(medians.steps, medians.losses, color=colours(i), label=row.title, **style)
        axis.axhline(target(results, task, regime), color="black", linewidth=0.8)
        axis.set(title=TASKS[task].title, xlabel="step", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.25)
    for axis in list(axes.flat)[len(tasks) :]:
        axis.axis("off")
    axes[0, 0].set_ylabel("validation loss")
    handles = {line.get_label(): line for axis in axes.flat[: len(tasks)] for line in axis.lines[:-1]}  # not the target
    order = [row.title for row in OPTIMIZERS.values() if row.title in handles]
    figure.legend([handles[title] for title in order], order, loc="outside lower center", ncols=5)
    figure.set_layout_engine("constrained")
    figure.suptitle(f"{REGIMES[regime].title}: median of the seeds, the target in black")
    return figure


def heat_maps(sweeps: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Return INNA's final validation loss over alpha and beta, a panel for each task and lr."""
    axes_of = SWEEPS["alpha-beta"].axes
    lrs, alphas, betas = (axes_of[name] for name in ("lr", "alpha", "beta"))
    rows = max(1, len(sweeps))
    size = (3.9 * len(lrs), 3.5 * rows)
    figure, axes = plt.subplots(rows, len(lrs), figsize=size, dpi=90, squeeze=False, layout="constrained")
    for line, (task, runs) in zip(axes, sweeps.items(), strict=False):
        losses = {(run["lr"], run["alpha"], run["beta"]): run["validation"] for run in runs}
        best = min(loss for loss in losses.values() if loss is not None)
        image: Any = None
        for axis, lr in zip(line, lrs, strict=True):
            grid = [[losses.get((lr, alpha, beta)) for beta in betas] for alpha in alphas]
            values = np.asarray(grid, dtype=float)  # NaN where a run diverged
            norm = LogNorm(best, 30 * best)
            image = axis.imshow(values, norm=norm, origin="lower", cmap="viridis_r")
            axis.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axis.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
            axis.set(title=f"{TASKS[task].title}, lr {lr:g}", xlabel="β", ylabel="α")
            for (i, j), value in np.ndenumerate(values):
                shown, dark = (f"{value:.2g}", norm(value) > 0.5) if np.isfinite(value) else ("×", False)
                axis.text(j, i, shown, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        figure.colorbar(image, ax=list(line), label="validation loss")
    return figure


STYLES = {
    "adamw": {"color": "black", "linestyle": "--"},
    "nadam-constant": {"color": "tab:green", "linestyle": ":"},
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
