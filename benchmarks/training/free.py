"""Train with optimizers that choose their own step sizes, at their defaults; nothing is tuned.

Prodigy, Schedule-Free AdamW, and INNA with the step sizes of summary-Newton, each with the schedule that its own
documentation advises and with the cosine of the other runs. The seeds are those of `python -m benchmarks
training-transfer`. Goes on where it was interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training.ablation import without_warmup
from benchmarks.training.console import device, progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import Loss, Row, Trained, newton
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES, WARMUP, Regime
from benchmarks.training.study import repeated
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.transfer import ALL_SEEDS

FREE_TASKS = ("digits", "burgers", "mnist", "fashion")
"""Not the GPT, whose 28 tensors make summaries slow, nor CIFAR-10: the weights that Schedule-Free averages would need
statistics of their own in batch normalization."""

CONSTANT = Regime("constant", "constant", {}, lambda steps, _: lambda step: 1.0)
COSINE = Regime("cosine-only", "cosine without warm-up", {}, without_warmup)


class TwoPoints(torch.nn.Module):
    """A model whose optimizer trains at one point and is evaluated at another: `train` and `eval` switch it as well."""

    def __init__(self, model: torch.nn.Module, optimizer: Any) -> None:
        super().__init__()
        self.model, self.optimizer = model, optimizer

    def train(self, mode: bool = True) -> "TwoPoints":
        super().train(mode)
        self.optimizer.train() if mode else self.optimizer.eval()
        return self

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(*inputs)


def prodigy(model: torch.nn.Module, _: Loss, **arguments: Any) -> Trained:
    return importlib.import_module("prodigyopt").Prodigy(model.parameters(), **arguments), model


def schedule_free(model: torch.nn.Module, _: Loss, **arguments: Any) -> Trained:
    optimizer = importlib.import_module("schedulefree").AdamWScheduleFree(model.parameters(), **arguments)
    return optimizer, TwoPoints(model, optimizer)


def nothing(_: Task) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Free:
    """An optimizer at its defaults.

    Attributes:
        name: on the command line and in the results.
        title: in tables.
        make: the optimizer and the model to look at.
        regime: its schedule.
        package: that it is from; None is this one.
        setting: its own arguments on a task, as far as they are not left at their defaults.
    """

    name: str
    title: str
    make: Callable[..., Trained]
    regime: Regime
    package: str | None = None
    setting: Callable[[Task], dict[str, Any]] = field(default=nothing)

    @property
    def row(self) -> Row:
        return Row(self.name, self.title, {}, dict, self.make)


def published(_: Task) -> dict[str, Any]:
    return {"alpha": 0.5, "beta": 0.1}


FREES = (
    Free("prodigy", "Prodigy, cosine without warm-up", prodigy, COSINE, "prodigyopt"),
    Free(
        *("prodigy-warmup", "Prodigy, cosine after warm-up, safeguard", prodigy, REGIMES["cosine"], "prodigyopt"),
        setting=lambda task: {"safeguard_warmup": True},
    ),
    Free(
        *("schedulefree", "Schedule-Free AdamW, warm-up", schedule_free, CONSTANT, "schedulefree"),
        setting=lambda task: {"warmup_steps": max(1, round(WARMUP * task.steps))},
    ),
    Free("newton", "INNA, summary-Newton", newton, CONSTANT, setting=published),
    Free(
        *("newton-trust", "INNA, summary-Newton, trust 0.03", newton, CONSTANT),
        setting=lambda task: {**published(task), "trust": 0.03},
    ),
    Free(
        *("newton-cosine", "INNA, summary-Newton, damping with the cosine", newton, REGIMES["cosine"]),
        setting=published,
    ),
)

BY_NAME = {free.name: free for free in FREES}


def names(task: str, free: Free) -> tuple[str, ...]:
    return "free", task, free.name


def complete(
    task: Task, free: Free, store: Store, device: torch.device, advance: Callable[[int], None] = lambda steps: None
) -> Mapping[str, Any]:
    """Run all seeds of a row on a task, as far as they are missing; see `study.repeated`."""
    record = {"package": f"{free.package} {version(free.package)}"} if free.package else {}
    where, own = names(task.name, free), free.setting(task)
    return repeated(task, free.regime, free.row, own, record, store, where, device, advance, seeds=ALL_SEEDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing, which is said for each task.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-free",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known in (("--task", FREE_TASKS), ("--optimizer", BY_NAME)):
        parser.add_argument(option, type=some_of(known), default=list(known), help=f"some of {','.join(known)} (all)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store, failed = Store(options.out), {}
    todo = [(TASKS[task], BY_NAME[name]) for task in options.task for name in options.optimizer]
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(task.steps * len(ALL_SEEDS) for task, _ in todo))
        for task, free in todo:
            bars.update(bar, description=f"{task.name}, {free.name}")
            try:
                complete(task, free, store, options.device, lambda steps: bars.advance(bar, steps))
            except MissingDataError as error:
                failed[str(error)] = None
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0
