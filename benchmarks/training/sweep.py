"""Vary INNA's hyperparameters over a grid, one seed each, to see how sensitive training is to them.

alpha-beta: alpha, beta and lr, cosine. decay: the exponent q of lr (k + 1)^(-q), and lr, at INNA's default alpha and
beta. Goes on where it was interrupted, run by run.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import inna_core
import inna_torch
from benchmarks.training.console import device, progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import Row, alone
from benchmarks.training.results import FOLDER, OtherProtocolError, Store, rounded
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import TUNING_SEED
from benchmarks.training.tasks import TASKS, Split, Task
from benchmarks.training.trial import moved, run

PLAIN = Row("inna", "INNA", {}, dict, alone(inna_torch.INNA))
TASK_NAMES = ("digits", "mnist")


@dataclass(frozen=True)
class Sweep:
    """A grid.

    Attributes:
        name: on the command line and in the results.
        regime: of step sizes.
        axes: the values of each hyperparameter.
        fixed: those that stay.
    """

    name: str
    regime: str
    axes: Mapping[str, tuple[float, ...]]
    fixed: Mapping[str, float]

    def settings(self) -> Iterator[dict[str, float]]:
        for values in itertools.product(*self.axes.values()):
            yield {**dict(zip(self.axes, values, strict=True)), **self.fixed}


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            "alpha-beta",
            "cosine",
            {"lr": (0.1, 0.3, 1.0), "alpha": (0.03, 0.1, 0.3, 1.0, 3.0), "beta": (0.03, 0.1, 0.3, 1.0, 3.0)},
            {},
        ),
        Sweep(
            "decay",
            "power",
            {"q": (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2), "lr": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)},
            {"alpha": inna_core.INNA().alpha, "beta": inna_core.INNA().beta},
        ),
    )
}


def finished(store: Store, task: str, name: str) -> list[dict[str, Any]]:
    """Return the runs of a sweep on a task, or none as long as some are missing."""
    runs = store.read("sweep", task, name).get("runs", [])
    return runs if len(runs) == len(list(SWEEPS[name].settings())) else []


def complete(
    task: Task, sweep: Sweep, store: Store, device: torch.device, advance: Callable[[int], None] = lambda steps: None
) -> Mapping[str, Any]:
    """Run what is missing of a sweep on a task, and store each run as soon as it is done.

    Args:
        task: to train.
        sweep: the grid.
        store: where its results are and go.
        device: to train on.
        advance: told the number of steps that have been made, or found done, since it was told before.

    Returns:
        The whole result, as it is stored.
    """
    names = ("sweep", task.name, sweep.name)
    protocol = {
        "steps": task.steps,
        "batch": task.batch,
        "seed": TUNING_SEED,
        "regime": sweep.regime,
        "axes": {name: list(values) for name, values in sweep.axes.items()},
        "fixed": dict(sweep.fixed),
    }
    runs = list(store.resume(rounded(protocol), *names).get("runs", []))
    result = {"task": task.name, "sweep": sweep.name, "protocol": rounded(protocol), "runs": runs}
    advance(task.steps * len(runs))
    fit: tuple[Split, Split] | None = None
    for setting in list(sweep.settings())[len(runs) :]:
        if fit is None:
            train, validation = task.fit()
            fit = moved(train, device), moved(validation, device)
        outcome = run(task, fit, PLAIN, REGIMES[sweep.regime], setting, TUNING_SEED, curve=False, advance=advance)
        train = outcome.looks[-1].train if outcome.finished else None
        runs.append(rounded({**setting, "train": train, "validation": outcome.validation}))
        store.write(result, *names)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing or results of another protocol are in the way, which is said.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = ",".join(TASK_NAMES)
    parser.add_argument(
        "--task", type=some_of(TASKS), default=list(TASK_NAMES), help=f"some of {','.join(TASKS)} ({defaults})"
    )
    parser.add_argument("--sweep", type=some_of(SWEEPS), default=list(SWEEPS), help=f"some of {','.join(SWEEPS)} (all)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    pairs = [(TASKS[task], SWEEPS[sweep]) for task in options.task for sweep in options.sweep]
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(task.steps * len(list(sweep.settings())) for task, sweep in pairs))
        for task, sweep in pairs:
            bars.update(bar, description=f"{task.name}, {sweep.name}")
            try:
                complete(task, sweep, store, options.device, lambda steps: bars.advance(bar, steps))
            except (MissingDataError, OtherProtocolError) as error:
                print(error, file=sys.stderr)
                return 1
    return 0
