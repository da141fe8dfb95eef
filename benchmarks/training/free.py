"""Train with optimizers that choose their own step sizes, at their defaults; nothing is tuned.

Prodigy, Schedule-Free AdamW, and INNA with the step sizes of summary-Newton, each with the schedule that its own
documentation advises and with the cosine of the other runs. The seeds are those of `python -m benchmarks
training-transfer`. Resumes where it was interrupted.
"""

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.training.console import command_parser
from benchmarks.training.optimizers import Loss, Made, Row, fixed, newton
from benchmarks.training.schedules import CONSTANT, COSINE, COSINE_ONLY, WARMUP
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import Run, train_all
from benchmarks.training.transfer import ALL_SEEDS

TASK_NAMES = ("digits", "burgers", "mnist", "fashion")
"""Not the GPT, whose 28 tensors make summaries slow, nor CIFAR-10: the weights that Schedule-Free averages would need
statistics of their own in batch normalization."""


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


def prodigy(model: torch.nn.Module, _: Loss, **arguments: Any) -> Made:
    return importlib.import_module("prodigyopt").Prodigy(model.parameters(), **arguments), model


def schedule_free(model: torch.nn.Module, _: Loss, **arguments: Any) -> Made:
    optimizer = importlib.import_module("schedulefree").AdamWScheduleFree(model.parameters(), **arguments)
    return optimizer, TwoPoints(model, optimizer)


PACKAGES = {prodigy: "prodigyopt", schedule_free: "schedulefree"}
PUBLISHED = {"alpha": 0.5, "beta": 0.1}

ROWS = (
    (fixed("prodigy", "Prodigy, cosine without warm-up", prodigy, {}), COSINE_ONLY),
    (
        fixed("prodigy-warmup", "Prodigy, cosine after warm-up, safeguard", prodigy, {"safeguard_warmup": True}),
        COSINE,
    ),
    (
        Row(
            *("schedulefree", "Schedule-Free AdamW, warm-up", schedule_free),
            lambda setting: {"warmup_steps": max(1, round(WARMUP * setting["steps"]))},
        ),
        CONSTANT,
    ),
    (fixed("newton", "INNA, summary-Newton", newton, PUBLISHED), CONSTANT),
    (fixed("newton-trust", "INNA, summary-Newton, trust 0.03", newton, {**PUBLISHED, "trust": 0.03}), CONSTANT),
    (fixed("newton-cosine", "INNA, summary-Newton, damping with the cosine", newton, PUBLISHED), COSINE),
)
"""Each with its schedule."""

BY_NAME = {row.name: (row, regime) for row, regime in ROWS}


def names(task: str, row: str) -> tuple[str, ...]:
    """Return where the results of a row on a task are stored."""
    return "free", task, row


def run(task: Task, name: str) -> Run:
    """Return a row on a task; the setting is the number of steps."""
    row, regime = BY_NAME[name]
    package = PACKAGES.get(row.make)
    record = {"package": f"{package} {version(package)}"} if package else {}
    return Run(names(task.name, name), task, regime, row, {"steps": task.steps}, ALL_SEEDS, record)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    options = command_parser("training-free", __doc__, task=TASK_NAMES, optimizer=BY_NAME).parse_args(arguments)
    torch.set_num_threads(1)
    runs = [run(TASKS[task], name) for task in options.task for name in options.optimizer]
    return train_all(runs, options)
