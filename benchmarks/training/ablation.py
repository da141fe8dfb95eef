"""Why does a lead pay? AdamW's tuned setting carried over, with the schedule or the batch changed.

Warm-up: INNAprop does not correct the bias of its velocity, which acts as a warm-up of 1/(1 - m) steps. So AdamW is run
without that correction too, INNAprop with it, and both with and without the schedule's own warm-up. The correction at
step k = 1, 2, ... is the factor 1/(1 - m^k) of lr, or its inverse for AdamW, whose own it takes away.

Batch: a quarter of the task's and four times as many, lr changed by the root of that factor, the same number of steps.

Resumes where it was interrupted. Needs the results of `python -m benchmarks training` for AdamW.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.training import transfer
from benchmarks.training.console import add_choice, command_parser
from benchmarks.training.optimizers import Row
from benchmarks.training.results import Store, tuned_setting
from benchmarks.training.schedules import COSINE, COSINE_ONLY, Factor, Regime, Schedule
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import Run, train_all

TASK_NAMES = ("digits", "mnist", "shakespeare")
ROWS = tuple(transfer.BY_NAME[name] for name in ("adamw", "innaprop-lead-m", "innaprop-lead-3"))
ADAMW, _, LEAD_3 = ROWS


def corrected(schedule: Schedule, power: int) -> Schedule:
    """Return a schedule times 1/(1 - m^k) to a power: 1 corrects the bias of a momentum, -1 takes a correction away."""

    def make(steps: int, setting: Mapping[str, Any]) -> Factor:
        factor, m = schedule(steps, setting), 1 - setting["forget"]
        return lambda step: factor(step) * (1 - m ** (step + 1)) ** -power

    return make


def with_batch(row: Row, factor: float) -> Row:
    """Return a row with the lr for a batch that is changed by a factor."""

    def arguments(setting: Mapping[str, Any]) -> dict[str, Any]:
        own = row.arguments(setting)
        return {**own, "lr": own["lr"] * math.sqrt(factor)}

    return replace(row, arguments=arguments)


def runs(task: Task, store: Store) -> dict[tuple[str, str], list[Run]]:
    """Return the runs on a task by question, "warmup" or "batch", and case; none if AdamW has not been tuned on it."""
    setting = tuned_setting(store, task.name, COSINE.name, "adamw")
    if setting is None:
        return {}

    def changed(name: str, row: Row, schedule: Schedule, factor: float = 1.0) -> Run:
        if schedule is COSINE.schedule and factor == 1:
            return transfer.run(task, row, setting)
        own = replace(task, batch=round(task.batch * factor))
        regime = Regime(name, row.title, schedule)
        names = ("ablation", task.name, name)
        return Run(names, own, regime, with_batch(row, factor), setting, derived=True)

    found = {}
    for label, case, schedule in (("warm", "with warm-up", COSINE.schedule), ("flat", "without", COSINE_ONLY.schedule)):
        biased = replace(ADAMW, title="AdamW, first moment not corrected")
        unbiased = replace(LEAD_3, title=f"{LEAD_3.title}, velocity corrected")
        found["warmup", case] = [
            *(changed(f"{label}-{row.name}", row, schedule) for row in ROWS),
            changed(f"{label}-adamw-biased", biased, corrected(schedule, -1)),
            changed(f"{label}-innaprop-lead-3-corrected", unbiased, corrected(schedule, 1)),
        ]
    for factor in (0.25, 1.0, 4.0):
        found["batch", f"batch × {factor:g}"] = [
            changed(f"batch{factor:g}-{row.name}", row, COSINE.schedule, factor) for row in ROWS
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    parser = command_parser("training-ablation", __doc__)
    add_choice(parser, "--task", TASKS, TASK_NAMES)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    todo = [run for task in options.task for found in runs(TASKS[task], store).values() for run in found]
    return train_all(todo, options)
