"""Why does a lead pay? AdamW's tuned setting carried over, with the schedule or the batch changed.

Warm-up: INNAprop does not correct the bias of its velocity, which acts as a warm-up of 1/(1 - m) steps. So AdamW is run
without that correction too, INNAprop with it, and both with and without the schedule's own warm-up. The correction at
step k = 1, 2, ... is the factor 1/(1 - m^k) of lr, or its inverse for AdamW, whose own it takes away.

Batch: a quarter of the task's and four times as many, lr changed by the root of that factor, the same number of steps.

Goes on where it was interrupted. Needs the results of `python -m benchmarks training` for AdamW.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training import transfer
from benchmarks.training.console import progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES, Regime, WarmupCosine
from benchmarks.training.study import SEEDS, repeated
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.transfer import BY_NAME, Transfer, tuned_setting

Schedule = Callable[[int, Mapping[str, Any]], Callable[[int], float]]


def momentum_of(setting: Mapping[str, Any]) -> float:
    return setting["momentum"] if "momentum" in setting else setting["betas"][0]


def without_warmup(steps: int, _: Mapping[str, Any]) -> Callable[[int], float]:
    return WarmupCosine(steps, 0)


def corrected(schedule: Schedule, power: int) -> Schedule:
    """Return a schedule times 1/(1 - m^k) to a power: 1 corrects the bias of a momentum, -1 takes a correction away."""

    def make(steps: int, setting: Mapping[str, Any]) -> Callable[[int], float]:
        factor, m = schedule(steps, setting), momentum_of(setting)
        return lambda step: factor(step) * (1 - m ** (step + 1)) ** -power

    return make


@dataclass(frozen=True)
class Variant:
    """A row with a schedule and a batch.

    Attributes:
        name: in the results.
        question: to which it belongs, "warmup" or "batch".
        case: the column of its table.
        title: the row of its table.
        transfer: the optimizer.
        schedule: of lr.
        batch: the factor of the task's batch.
    """

    name: str
    question: str
    case: str
    title: str
    transfer: Transfer
    schedule: Schedule
    batch: float = 1.0

    def regime(self) -> Regime:
        return Regime(self.name, self.title, {}, self.schedule)

    def task(self, task: Task) -> Task:
        return replace(task, batch=round(task.batch * self.batch))

    def setting(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        own = self.transfer.convert(drawn)
        return {**own, "lr": own["lr"] * math.sqrt(self.batch)}


COSINE = REGIMES["cosine"].schedule
ROWS = tuple(BY_NAME[name] for name in ("adamw", "innaprop-lead-m", "innaprop-lead-3"))
ADAMW, LEAD = BY_NAME["adamw"], BY_NAME["innaprop-lead-3"]


def warmup_variants(label: str, case: str, schedule: Schedule) -> list[Variant]:
    rows = [Variant(f"{label}-{row.name}", "warmup", case, row.title, row, schedule) for row in ROWS]
    biased = Variant(
        *(f"{label}-adamw-biased", "warmup", case, "AdamW, first moment not corrected", ADAMW), corrected(schedule, -1)
    )
    unbiased = Variant(
        *(f"{label}-innaprop-lead-3-corrected", "warmup", case, f"{LEAD.title}, velocity corrected", LEAD),
        corrected(schedule, 1),
    )
    return [*rows, biased, unbiased]


def batch_variants(factor: float) -> list[Variant]:
    case = f"batch × {factor:g}"
    return [Variant(f"batch{factor:g}-{row.name}", "batch", case, row.title, row, COSINE, factor) for row in ROWS]


VARIANTS = (
    *warmup_variants("warm", "with warm-up", COSINE),
    *warmup_variants("flat", "without", without_warmup),
    *(variant for factor in (0.25, 1.0, 4.0) for variant in batch_variants(factor)),
)
ABLATED = ("digits", "mnist", "shakespeare")


def names(task: str, variant: Variant) -> tuple[str, ...]:
    """Return where the results are: what changes nothing is among those of `transfer`."""
    plain = variant.schedule is COSINE and variant.batch == 1
    return ("transfer", task, "cosine", variant.transfer.name) if plain else ("ablation", task, variant.name)


def complete(
    task: Task, variant: Variant, store: Store, advance: Callable[[int], None] = lambda steps: None
) -> Mapping[str, Any] | None:
    """Run what is missing of a variant; None if AdamW has not been tuned on the task."""
    drawn = tuned_setting(task.name, "cosine", "adamw", store)
    if drawn is None:
        advance(task.steps * len(SEEDS))
        return None
    where, own = names(task.name, variant), variant.setting(drawn)
    if where[0] == "transfer":
        return transfer.complete(task, REGIMES["cosine"], variant.transfer, store, torch.device("cpu"))
    changed, row, cpu = variant.task(task), variant.transfer.row, torch.device("cpu")
    return repeated(changed, variant.regime(), row, own, {}, store, where, cpu, advance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing, which is said.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--task", type=some_of(TASKS), default=list(ABLATED), help=f"some of {','.join(TASKS)} ({','.join(ABLATED)})"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    with progress(Console()) as bars:
        tasks = [TASKS[name] for name in options.task]
        bar = bars.add_task("", total=sum(task.steps for task in tasks) * len(SEEDS) * len(VARIANTS))
        for task in tasks:
            for variant in VARIANTS:
                bars.update(bar, description=f"{task.name}, {variant.name}")
                try:
                    complete(task, variant, store, lambda steps: bars.advance(bar, steps))
                except MissingDataError as error:
                    print(error, file=sys.stderr)
                    return 1
    return 0
