"""Train long tasks with published settings; nothing is tuned.

Results go to one JSON file for each task and row, after every run; started again, the command resumes where it was. All
rows are run with the first seed before any is run with the second.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.training.console import add_choice, command_parser, seeds
from benchmarks.training.long_rows import ON_REQUEST, ROWS
from benchmarks.training.long_tasks import LONG, REGIMES
from benchmarks.training.optimizers import Row
from benchmarks.training.runs import train_all
from benchmarks.training.schedules import Regime
from benchmarks.training.tasks import Task
from benchmarks.training.train import SEEDS, Run, device_name


def on_device(task: Task, device: torch.device) -> Task:
    """Return a task under the name that its results have on a device: those of a GPU stand apart."""
    if device.type == "cpu":
        return task
    protocol = {**task.protocol, "device": device_name(device)}
    return replace(task, name=f"{task.name}-gpu", title=f"{task.title}, on a GPU", protocol=protocol)


def names(task: str, row: str) -> tuple[str, ...]:
    """Return where the results of a row on a task are stored."""
    return "long", task, row


def run(task: Task, regime: Regime, row: Row, *seeds: int) -> Run:
    record = {"title": row.title, "torch": str(torch.__version__)}
    return Run(names(task.name, row.name), task, regime, row, {}, seeds, record)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    parser = command_parser("training-long", __doc__)
    add_choice(parser, "--task", ROWS, [task for task in ROWS if task not in ON_REQUEST])
    add_choice(parser, "--optimizer", dict.fromkeys(name for rows in ROWS.values() for name in rows))
    parser.add_argument("--seeds", type=seeds, default=list(SEEDS), help="whole numbers of at least 1 (1,2,3)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = [
        run(on_device(LONG[task], options.device), REGIMES[task], ROWS[task][name], seed)
        for task in options.task
        for seed in options.seeds
        for name in options.optimizer
        if name in ROWS[task]
    ]
    return train_all(runs, options)
