"""Studies are fair, keep to their device, and resume where they were interrupted."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import torch

from benchmarks.training import repeat, scores, starts, sweep, tasks
from benchmarks.training import study as studies
from benchmarks.training import train as training
from benchmarks.training import transfer as transfers
from benchmarks.training.optimizers import OPTIMIZERS, TUNED, Row
from benchmarks.training.results import OtherProtocolError, Store
from benchmarks.training.schedules import POWER, REGIMES
from benchmarks.training.spaces import Log
from benchmarks.training.study import SECOND_SEED, TUNING_SEED, complete, settings
from benchmarks.training.tasks import EVALUATIONS, TASKS, Task
from benchmarks.training.train import SEEDS, Run, train
from conformance_tests.benchmarks.training_line import CPU, evaluations, line, study, timeless, trained
from conformance_tests.tiers import nightly_but


def test_settings_lie_in_their_space_and_a_larger_budget_begins_alike() -> None:
    for row in TUNED.values():
        few, many = settings(row.space, 5), settings(row.space, 12)
        assert many[:5] == few
        for name, space in row.space.items():
            values = [setting[name] for setting in many]
            if isinstance(space, Log):
                assert all(space.low <= value <= space.high for value in values)
                assert len(set(values)) == 12
            else:
                assert set(values) == set(space.values)


def test_the_test_split_is_used_for_the_chosen_setting_only(tmp_path: Path) -> None:
    store, uses = Store(tmp_path), []
    plain = line()

    def test() -> tasks.Split:
        stored = store.read("line", "power", "inna")
        uses.append((len(stored["tuning"]), len(stored["second"])))
        return plain.test()

    result = complete(study(5, replace(plain, test=test)), store, CPU)
    assert uses == [(5, 3)] * 3
    assert [final["seed"] for final in result["final"]] == list(SEEDS)
    assert {TUNING_SEED, SECOND_SEED}.isdisjoint(SEEDS)
    assert all("test" not in trial for trial in (*result["tuning"], *result["second"]))


def test_the_best_of_both_seeds_is_chosen(tmp_path: Path) -> None:
    result = complete(study(6), Store(tmp_path), CPU)
    first = {trial["number"]: trial["validation"] for trial in result["tuning"]}
    second = {trial["number"]: trial["validation"] for trial in result["second"]}
    bad = math.inf
    ranked = sorted(first, key=lambda n: bad if first[n] is None else first[n])
    assert list(second) == ranked[:3]
    worse = {n: max(first[n] or bad, second[n] or bad) for n in second}
    assert worse[result["winner"]] == min(worse.values())


def test_a_run_repeats_itself() -> None:
    setting = settings(study(1).space, 1)[0]
    runs = []
    for _ in range(2):
        runs.append(evaluations(trained(OPTIMIZERS["inna"], "power", setting, 3, curve=True)))
        torch.rand(3)  # the global generator takes no part
    assert runs[0] == runs[1]


def test_a_run_that_diverges_ends_early_and_loses(tmp_path: Path) -> None:
    reported: list[int] = []
    row = replace(OPTIMIZERS["sgd"], space={"lr": Log(1e20, 1e21)})
    s = replace(study(2, regime="cosine"), row=row)
    result = complete(s, Store(tmp_path), CPU, reported.append)
    assert sum(reported) == s.steps
    assert [trial["validation"] for trial in result["tuning"]] == [None, None]
    assert all(not final["finished"] and final["test"] is None for final in result["final"])
    assert scores.score(result, 1.0).reached == 0
    assert "NaN" not in (tmp_path / "line_cosine_sgd.json").read_text()


def small(name: str) -> Task:
    """Return a task with a few samples of the right shape in place of its data, and one step to an evaluation."""
    task = replace(TASKS[name], steps=EVALUATIONS, batch=4)
    shapes: dict[str, tuple[int, ...]] = {"digits": (64,), "burgers": (2,), "cifar10": (3, 32, 32)}

    def split() -> tasks.Split:
        if name == "shakespeare":
            return torch.zeros(8, tasks.CONTEXT, dtype=torch.int64), torch.zeros(8, tasks.CONTEXT, dtype=torch.int64)
        x = torch.rand(8, *shapes.get(name, (1, 28, 28)))
        return x, torch.zeros(8) if name == "burgers" else torch.zeros(8, dtype=torch.int64)

    return replace(task, fit=lambda: (split(), split()), test=split)


@pytest.mark.parametrize("row", [*(row for row in OPTIMIZERS if row != "newton"), "inna-average"])
def test_runs_keep_to_their_device(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's meta device stands for an accelerator: operations raise where devices mix, but tensors have no values."""
    keeps_to_the_device(small("digits"), TUNED[row], monkeypatch)


@pytest.mark.parametrize("name", nightly_but(["digits", "burgers"], TASKS))
def test_tasks_keep_to_their_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_to_the_device(small(name), OPTIMIZERS["adamw"], monkeypatch)


def test_a_tensor_left_behind_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.ones(64)
    task = small("digits")
    astray = replace(task, loss=lambda model, x, y: task.loss(model, x + here, y))
    with pytest.raises(RuntimeError, match="device"):
        keeps_to_the_device(astray, OPTIMIZERS["sgd"], monkeypatch)


def keeps_to_the_device(task: Task, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, read = torch.device("meta"), []

    def number(tensor: torch.Tensor) -> float:
        read.append(tensor.device.type)
        return 1.0

    for module in (training, tasks):
        monkeypatch.setattr(module, "float", number, raising=False)
    setting = settings(row.space, 1)[0]
    run = Run((task.name,), task, REGIMES["cosine"], row, setting)
    outcome = train(run, training.load(task, meta), 0, curve=True)
    training.metric(task, outcome.model, training.to_device(task.test(), meta))
    assert {p.device.type for p in outcome.model.parameters()} == {"meta"}
    assert len(outcome.evaluations) == EVALUATIONS
    assert len(read) >= 2 * EVALUATIONS + 1
    assert set(read) == {"meta"}


def test_an_absent_device_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for main in (studies.main, sweep.main, transfers.main, starts.main, repeat.main):
        with pytest.raises(SystemExit):
            main(["--device", "cuda"])
        assert "torch finds no such device here" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [0, 1, 4, 5, 7, 9])
def test_an_interrupted_study_ends_as_one_that_was_not(runs: int, tmp_path: Path) -> None:
    """Four trials, three of them again, three final runs: stop in each part."""
    whole = complete(study(4), Store(tmp_path / "whole"), CPU)
    left = [EVALUATIONS * runs + 3]

    def interrupt(steps: int) -> None:
        left[0] -= steps
        if left[0] < 0:
            raise KeyboardInterrupt

    store = Store(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        complete(study(4), store, CPU, interrupt)
    reported: list[int] = []
    complete(study(4), store, CPU, reported.append)
    names = study(4).names
    assert timeless(store.read(*names)) == timeless(Store(tmp_path / "whole").read(*names))
    assert timeless(store.read(*names)["tuning"]) == timeless(json.loads(json.dumps(whole["tuning"])))
    assert sum(reported) == study(4).steps


def test_a_larger_budget_extends_a_smaller(tmp_path: Path) -> None:
    few, many = Store(tmp_path / "few"), Store(tmp_path / "many")
    complete(study(3), few, CPU)
    complete(study(7), few, CPU)
    complete(study(7), many, CPU)
    names = study(7).names
    assert timeless(few.read(*names)) == timeless(many.read(*names))
    before = few.path(*names).read_bytes()
    complete(study(2), few, CPU)
    assert timeless(json.loads(before)) == timeless(few.read(*names))


def test_a_protocol_of_long_numbers_is_continued(tmp_path: Path) -> None:
    """Results are stored with five digits; a third is not among them."""
    store, protocol = Store(tmp_path), {"setting": {"lr": 1 / 3}}
    store.write({"protocol": protocol}, "task", "row")
    assert store.resume(protocol, "task", "row") == {"protocol": {"setting": {"lr": 0.33333}}}


def test_results_of_another_protocol_are_not_continued(tmp_path: Path) -> None:
    complete(study(1), Store(tmp_path), CPU)
    with pytest.raises(OtherProtocolError, match=r"different: steps.*Delete it"):
        complete(study(1, replace(line(), steps=2 * EVALUATIONS)), Store(tmp_path), CPU)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write({"old": 1.0}, "file")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write({"new": 2.0}, "file")
    assert store.read("file") == {"old": 1.0}


def test_an_interrupted_sweep_resumes(tmp_path: Path) -> None:
    grid = sweep.Sweep("grid", POWER, {"lr": (0.1, 1e30), "q": (0.0, 0.5)}, {"alpha": 0.5, "beta": 0.1})
    left = [EVALUATIONS + 3]

    def interrupt(steps: int) -> None:
        left[0] -= steps
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.complete(line(), grid, Store(tmp_path), CPU, interrupt)
    assert len(Store(tmp_path).read("sweep", "line", "grid")["runs"]) == 1
    result = sweep.complete(line(), grid, Store(tmp_path), CPU)
    assert result == sweep.complete(line(), grid, Store(tmp_path / "whole"), CPU)
    assert [run["lr"] for run in result["runs"]] == [0.1, 0.1, 1e30, 1e30]
    assert [run["validation"] is None for run in result["runs"]] == [False, False, True, True]
