"""Schedules, coordinates and starts of the training benchmark mean what they say."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import numpy as np
import torch

import inna_core
import inna_torch
from benchmarks.training import report_short, scores, starts, train
from benchmarks.training import transfer as transfers
from benchmarks.training.optimizers import (
    AGAINST_LR,
    OPTIMIZERS,
    SAME_MOMENTUM,
    TUNED,
    WITH_LR,
    Row,
    alone,
    average,
    averaged,
    inertial,
)
from benchmarks.training.results import Store
from benchmarks.training.schedules import warmup_cosine
from benchmarks.training.spaces import Log
from benchmarks.training.study import complete
from benchmarks.training.tasks import EVALUATIONS, TASKS
from benchmarks.training.train import SEEDS
from conformance_tests.benchmarks.training_line import CPU, Only, evaluations, line, study, trained

STORE = Store()
COMMITTED = scores.studies(STORE)


def test_cosine_rises_and_falls() -> None:
    schedule = warmup_cosine(100, 5)
    rise = [0.2, 0.4, 0.6, 0.8, 1.0]
    fall = [math.cos(math.pi * (k - 5) / 190) ** 2 for k in range(5, 100)]
    np.testing.assert_allclose([schedule(k) for k in range(100)], rise + fall, atol=1e-12)


class Recorder(inna_torch.INNA):
    """INNA that remembers its hyperparameters."""

    steps: list[dict[str, float]]

    def step(self, closure: Any = None) -> Any:
        Recorder.steps.append({name: self.param_groups[0][name] for name in ("lr", "alpha", "beta")})
        return super().step(closure)


COSINE = [warmup_cosine(EVALUATIONS, 1)(k) for k in range(EVALUATIONS)]


@pytest.mark.parametrize(
    ("regime", "drawn", "factors"),
    [("power", {"q": 0.25}, [(k + 1) ** -0.25 for k in range(EVALUATIONS)]), ("cosine", {}, COSINE)],
)
@pytest.mark.parametrize("powers", [{"lr": 1.0}, WITH_LR, AGAINST_LR, SAME_MOMENTUM])
def test_a_run_follows_its_schedule(
    regime: str, drawn: dict[str, float], factors: list[float], powers: dict[str, float]
) -> None:
    Recorder.steps = []
    peak = {"lr": 0.1, "alpha": 0.4, "beta": 0.2}
    row = Row("recorder", "recorder", alone(Recorder), powers=powers)
    trained(row, regime, {**peak, **drawn})
    for name, value in peak.items():
        expected = [value * factor ** powers.get(name, 0.0) for factor in factors]
        np.testing.assert_allclose([step[name] for step in Recorder.steps], expected)


@pytest.mark.parametrize(
    ("powers", "scaled"),
    [
        ({"lr": 1.0}, {"gain": 1, "forget": 1, "lead": -1}),
        (WITH_LR, {"gain": 1, "forget": 1, "lead": 0}),
        (AGAINST_LR, {"gain": 2, "forget": 0, "lead": -1}),
        (SAME_MOMENTUM, {"gain": 1, "forget": 0, "lead": 0}),
    ],
)
def test_schedules_change_the_coordinates_as_said(powers: dict[str, float], scaled: dict[str, int]) -> None:
    at, factor = {"gain": 0.7, "forget": 0.2, "lead": 1.5}, 0.3
    found = {name: value * factor ** powers.get(name, 0.0) for name, value in inertial(**at).items()}
    assert found == pytest.approx(inertial(**{name: value * factor ** scaled[name] for name, value in at.items()}))


def test_averaged_weights_are_evaluated_and_change_no_step() -> None:
    setting = {"gain": 0.5, "forget": 0.2, "nesterov": False}
    weights: list[torch.Tensor] = []

    class Kept(torch.optim.SGD):
        """A hook, since a step that calls SGD's may run the hooks of both: torch patches SGD's at its first use."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.register_step_post_hook(lambda *_: weights.append(self.param_groups[0]["params"][0].detach().clone()))

    base = replace(OPTIMIZERS["momentum"], make=alone(Kept))
    plain = trained(base, "cosine", setting)
    own = list(weights)
    weights.clear()
    row = replace(average("momentum"), make=averaged(base.make))
    averaging = trained(row, "cosine", {**setting, "forget_weights": 0.1})
    assert [e.train for e in averaging.evaluations] == [e.train for e in plain.evaluations]
    assert all(torch.equal(a, b) for a, b in zip(own, weights, strict=True))
    mean = own[0]
    for weight in own[1:]:
        mean = 0.9 * mean + 0.1 * weight
    torch.testing.assert_close(averaging.model.get_parameter("module.weight").detach(), mean)
    x, y = line().fit()[1]
    averages = torch.nn.functional.linear(x, mean, averaging.model.get_parameter("module.bias"))
    assert averaging.validation == pytest.approx(float((averages[:, 0] - y).square().mean().detach()), rel=1e-5)


def test_the_loss_on_other_samples_takes_nothing_from_the_batches() -> None:
    asked: list[torch.Tensor] = []

    def make(model: torch.nn.Module, other: Callable[[], torch.Tensor], **arguments: Any) -> Any:
        asked.extend(other() for _ in range(2))
        return torch.optim.SGD(model.parameters(), **arguments), model

    asking, plain = (
        evaluations(trained(Row("sgd", "SGD", m), "cosine", {"lr": 0.1})) for m in (make, alone(torch.optim.SGD))
    )
    assert asking == plain
    assert all(loss.requires_grad for loss in asked)
    assert float(asked[0].detach()) != float(asked[1].detach())


@pytest.mark.parametrize(("gain", "forget", "lead"), [(0.5, 0.1, 1.0), (3.0, 0.4, 2.0), (0.01, 0.02, 5.0)])
def test_coordinates_mean_what_they_say(gain: float, forget: float, lead: float) -> None:
    """One gradient and then none: the steps add up to the gain, and INNA forgets as momentum does."""
    arguments = inertial(gain, forget, lead)
    lr = arguments.pop("lr")
    algorithm = inna_core.INNA(**arguments)
    theta = np.zeros(())
    state, steps = algorithm.init(theta), []
    for k in range(2000):
        delta, state = algorithm.update(np.asarray(float(k == 0)), state, theta, lr)
        steps.append(float(delta))
        theta = theta + delta
    assert -sum(steps) == pytest.approx(gain)
    assert -steps[0] == pytest.approx(gain * forget * lead)
    assert -steps[1] == pytest.approx(gain * forget * (1 - forget * lead))
    assert steps[2] / steps[1] == pytest.approx(1 - forget)

    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    own = {"gain": gain, "forget": forget, "nesterov": False}
    momentum, _ = OPTIMIZERS["momentum"].make(Only(parameter), None, **OPTIMIZERS["momentum"].arguments(own))
    for k in range(2000):
        parameter.grad = torch.full_like(parameter, float(k == 0))
        momentum.step()
    assert -parameter.item() == pytest.approx(gain)


def test_settings_transfer_and_begin_anew_with_another_winner(tmp_path: Path) -> None:
    store, rows = Store(tmp_path), [transfers.BY_NAME["inna"]]
    assert transfers.runs(line(), rows, store) == []
    complete(study(2, row="momentum", regime="cosine"), store, CPU)
    (run,) = transfers.runs(line(), rows, store)
    one = train.complete(run, store, CPU)
    assert train.complete(run, store, CPU) == one
    peer = store.read("line", "cosine", "momentum")
    peer["winner"] = 1 - peer["winner"]
    store.write(peer, "line", "cosine", "momentum")
    (run,) = transfers.runs(line(), rows, store)
    two = train.complete(run, store, CPU)
    assert two["protocol"]["setting"] != one["protocol"]["setting"]
    assert [final["seed"] for final in two["final"]] == list(transfers.ALL_SEEDS)
    assert len(one["final"]) == len(transfers.ALL_SEEDS)


@pytest.mark.parametrize(
    ("name", "gain", "momentum"),
    [("inna-momentum", 0.1 / (1 - 0.9), 0.9), ("innaprop-adamw", 0.001, 0.9), ("innaprop-start", 0.003, 0.9)],
)
def test_starts_are_what_they_say(name: str, gain: float, momentum: float) -> None:
    (start,) = [start for start in starts.ROWS if start.name == name]
    expected = inertial(gain, 1 - momentum, 1 + momentum)
    if name.startswith("innaprop"):  # as strong as AdamW's default of 0.01, which takes gain * 0.01 in a step
        expected["weight_decay"] = 0.01 * gain / expected["lr"]
    assert start.arguments({}) == pytest.approx(expected, rel=2e-3)


def test_a_start_is_stored_and_shown(tmp_path: Path) -> None:
    store, start = Store(tmp_path), starts.ROWS[0]
    task = replace(TASKS["digits"], steps=EVALUATIONS)
    one = train.complete(starts.run(task, start), store, CPU)
    assert len(one["final"]) == len(SEEDS)
    assert train.complete(starts.run(task, start), store, CPU) == one
    (shown,) = [line for line in report_short.starts(store, COMMITTED).splitlines() if start.title in line]
    found = scores.score(one, 0.0).validation
    assert [cell.strip() for cell in shown.split("|")[2:-1]] == [report_short.ranged(found), *[""] * 5]


def test_every_corner_of_every_space_makes_an_optimizer() -> None:
    for row in TUNED.values():
        for end in (0, -1):
            drawn = {k: (s.low, s.high)[end] if isinstance(s, Log) else s.values[end] for k, s in row.space.items()}
            optimizer, _ = row.make(torch.nn.Linear(2, 1), lambda: torch.zeros(()), **row.arguments(drawn))
            assert set(row.powers) <= set(optimizer.param_groups[0])
