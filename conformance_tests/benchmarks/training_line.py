"""A task of the training benchmark that trains in milliseconds."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import torch

from benchmarks.training import tasks
from benchmarks.training.optimizers import OPTIMIZERS, Row
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import Study
from benchmarks.training.tasks import EVALUATIONS, Task
from benchmarks.training.train import Evaluation, Outcome, Run, train

CPU = torch.device("cpu")


def line(test: Callable[[], tasks.Split] | None = None) -> Task:
    """Return a task that trains in milliseconds: a line through noisy points."""
    x = torch.linspace(-1, 1, 40)[:, None]
    y = 2 * x[:, 0] + 0.1 * torch.sin(40 * x[:, 0])
    return Task(
        *("line", "a line", lambda: ((x[::2], y[::2]), (x[1::4], y[1::4])), test or (lambda: (x[3::4], y[3::4]))),
        model=lambda: torch.nn.Linear(1, 1),
        loss=lambda model, x, y: (model(x)[:, 0] - y).square().mean(),
        metric=lambda model, x, y: float((model(x)[:, 0] - y).abs().max()),
        metric_name="largest error",
        higher_is_better=False,
        batch=4,
        steps=EVALUATIONS,
    )


class Only(torch.nn.Module):
    """A model that is one parameter."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


def study(trials: int, task: Task | None = None, row: str = "inna", regime: str = "power") -> Study:
    return Study(task or line(), OPTIMIZERS[row], REGIMES[regime], trials)


def trained(row: Row, regime: str, setting: dict[str, Any], seed: int = 0, *, curve: bool = False) -> Outcome:
    """Return how training a line goes."""
    return train(Run(("line",), line(), REGIMES[regime], row, setting), line().fit(), seed, curve=curve)


def evaluations(outcome: Outcome) -> list[Evaluation]:
    """Return a run's evaluations without what a second run cannot repeat."""
    return [replace(evaluation, seconds=0.0) for evaluation in outcome.evaluations]


def timeless(value: Any) -> Any:
    """Return stored results without what a second run cannot repeat."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key != "seconds"}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value
