"""Train with settings that nobody tuned: defaults, and what docs/training_short_runs.md says to start with.

Every task, the cosine schedule, the seeds of the final runs. Goes on where it was interrupted.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import inna_torch
from benchmarks.training.console import device, progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import Row, alone
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import SEEDS, repeated
from benchmarks.training.tasks import TASKS, Task

REGIME = REGIMES["cosine"]


@dataclass(frozen=True)
class Start:
    """An optimizer with a fixed setting.

    Attributes:
        name: in the results.
        title: in tables.
        optimizer: its class.
        setting: its own arguments, as far as they are not left at their defaults.
    """

    name: str
    title: str
    optimizer: Callable[..., torch.optim.Optimizer]
    setting: Mapping[str, Any]

    @property
    def row(self) -> Row:
        return Row(self.name, self.title, {}, dict, alone(self.optimizer))


STARTS = (
    Start("inna-default", "INNA, defaults (0.1, 0.5, 0.1)", inna_torch.INNA, {}),
    Start("inna-start", "INNA (0.3, 0.3, 1)", inna_torch.INNA, {"lr": 0.3, "alpha": 0.3, "beta": 1.0}),
    Start(
        *("inna-momentum", "INNA (0.316, 0.316, 0.601), which is SGD 0.1, 0.9"),
        *(inna_torch.INNA, {"lr": 0.316, "alpha": 0.316, "beta": 0.601}),
    ),
    Start(
        "momentum-start", "SGD, Nesterov (0.1, 0.9)", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    ),
    Start("innaprop-default", "INNAprop, defaults (0.001, 0.1, 0.9)", inna_torch.INNAprop, {}),
    Start(
        *("innaprop-adamw", "INNAprop (0.01, 10, 0.019), which is AdamW 0.001, 0.9"),
        *(inna_torch.INNAprop, {"lr": 0.01, "alpha": 10.0, "beta": 0.019, "weight_decay": 0.001}),
    ),
    Start(
        *("innaprop-start", "INNAprop (0.0173, 5.77, 0.0329), which is AdamW 0.003, 0.9"),
        *(inna_torch.INNAprop, {"lr": 0.0173, "alpha": 5.77, "beta": 0.0329, "weight_decay": 0.00173}),
    ),
    Start("adamw-default", "AdamW, defaults (0.001, 0.9)", torch.optim.AdamW, {}),
    Start("adamw-start", "AdamW (0.003, 0.9)", torch.optim.AdamW, {"lr": 3e-3}),
)


def names(task: str, start: Start) -> tuple[str, ...]:
    return "start", task, REGIME.name, start.name


def complete(
    task: Task, start: Start, store: Store, device: torch.device, advance: Callable[[int], None] = lambda steps: None
) -> Mapping[str, Any]:
    """Run the final seeds of a start on a task, as far as they are missing; see `study.repeated`."""
    return repeated(task, REGIME, start.row, start.setting, {}, store, names(task.name, start), device, advance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing, which is said for each task.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-starts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", type=some_of(TASKS), default=list(TASKS), help=f"some of {','.join(TASKS)} (all)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store, failed = Store(options.out), {}
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(TASKS[task].steps for task in options.task) * len(SEEDS) * len(STARTS))
        for task in (TASKS[name] for name in options.task):
            for start in STARTS:
                bars.update(bar, description=f"{task.name}, {start.name}")
                try:
                    complete(task, start, store, options.device, lambda steps: bars.advance(bar, steps))
                except MissingDataError as error:
                    failed[str(error)] = None
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0
