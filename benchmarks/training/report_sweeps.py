"""The tables of the grids over INNA's hyperparameters."""

import math

from benchmarks.training.report_short import NEAR
from benchmarks.training.results import Store
from benchmarks.training.sweep import SWEEPS, finished
from benchmarks.training.tables import number, table
from benchmarks.training.tasks import TASKS


def decay(store: Store) -> str:
    """Return the best training loss for each exponent q, with its learning rate."""
    exponents = SWEEPS["decay"].axes["q"]
    rows = []
    for task in TASKS:
        found = finished(store, task, "decay")
        if not found:
            continue
        cells = []
        for q in exponents:
            runs = [run for run in found if math.isclose(run["q"], q) and run["train"] is not None]
            least = min(runs, key=lambda run: run["train"], default=None)
            cells.append(f"{least['train']:.3g} (lr {least['lr']:g})" if least else "diverged")
        rows.append([TASKS[task].title, *cells])
    return table(["", *(f"q = {q:g}" for q in exponents)], rows)


def alpha_beta(store: Store) -> str:
    """Return, for each lr, the best alpha and beta, and how many settings come near the best of all."""
    sweep = SWEEPS["alpha-beta"]
    rows = []
    for task in TASKS:
        runs = finished(store, task, sweep.name)
        losses = [run["validation"] for run in runs if run["validation"] is not None]
        for lr in sweep.axes["lr"] if runs else ():
            own = [run for run in runs if run["lr"] == lr]
            fine = [run for run in own if run["validation"] is not None]
            least = min(fine, key=lambda run: run["validation"], default=None)
            near = sum(run["validation"] <= NEAR * min(losses) for run in fine)
            best = [f"{least['alpha']:g}", f"{least['beta']:g}", number(least["validation"])] if least else ["–"] * 3
            cells = [f"{lr:g}", *best]
            rows.append([TASKS[task].title, *cells, f"{near} of {len(own)}", f"{len(own) - len(fine)}"])
    return table(["", "lr", "best α", "best β", "validation loss", "near the best", "diverged"], rows)


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts of the pages by name."""
    return {"decay": decay(store), "alpha-beta": alpha_beta(store)}
