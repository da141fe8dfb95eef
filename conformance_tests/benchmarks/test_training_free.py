"""Optimizers that choose their own step sizes run as their authors say."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import torch

from benchmarks.training import free, report_free, train
from benchmarks.training.results import Store, rounded
from benchmarks.training.tasks import TASKS, Task
from conformance_tests.benchmarks.training_line import line

CPU = torch.device("cpu")
STORE = Store()


def short_line() -> Task:
    x = torch.linspace(-1, 1, 40)[:, None]
    split = (x, 2 * x[:, 0])
    return replace(line(lambda: split), fit=lambda: (split, split), steps=50)


@pytest.mark.parametrize("name", free.BY_NAME)
def test_free_rows_train_and_resume(name: str, tmp_path: Path) -> None:
    """Schedule-Free raises an error by itself if it steps in evaluation mode."""
    package = free.PACKAGES.get(free.BY_NAME[name][0].make)
    if package:
        pytest.importorskip(package, reason=f"the row needs {package}")
    store, row = Store(tmp_path), free.run(short_line(), name)
    stored = train.complete(row, store, CPU)
    assert [run["seed"] for run in stored["final"]] == list(free.ALL_SEEDS)
    for run in stored["final"]:
        assert run["evaluations"][-1]["validation"] < run["evaluations"][0]["validation"]
    assert (package or "package") in str(stored.get("package", "package"))
    before = store.path(*free.names("line", name)).read_bytes()
    train.complete(row, store, CPU)
    assert store.path(*free.names("line", name)).read_bytes() == before


def test_a_free_model_is_evaluated_where_schedule_free_averages() -> None:
    """With a constant gradient Adam's steps have size lr; x is the mean of the iterates z, not the last one."""
    pytest.importorskip("schedulefree", reason="the row needs it")
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    optimizer, evaluated = free.schedule_free(model, lambda: torch.zeros(()), lr=0.1, betas=(0.9, 0.999))
    one, steps = torch.ones(1, 1, dtype=torch.float64), 10
    evaluated.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (-evaluated(one)).sum().backward()
        optimizer.step()
    z, x = 0.1 * steps, 0.1 * (steps + 1) / 2  # Adam's steps are lr
    y = 0.1 * z + 0.9 * x
    assert model.weight.item() == pytest.approx(y, rel=1e-6)
    evaluated.eval()
    assert evaluated(one).item() == pytest.approx(x, rel=1e-6)
    evaluated.train()
    assert evaluated(one).item() == pytest.approx(y, rel=1e-6)


def test_free_tables_have_a_row_for_each_optimizer_with_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert len(report_free.blocks(store)["free"].splitlines()) == 2
    final = {"seed": 1, "finished": True, "test": 91.0, "evaluations": [{"seconds": 2.0, "validation": 0.25}]}
    store.write({"final": [final, {**final, "finished": False}]}, "free", "digits", "prodigy")
    row = report_free.blocks(store)["free"].splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *(free.BY_NAME["prodigy"][0].title, "2", "diverged (0.25 … diverged)"),
        *[""] * (len(free.TASK_NAMES) - 1),
    ]
    assert "91.00; 2.0 s" in report_free.blocks(store)["free-test"]


def test_committed_free_results_are_of_this_code() -> None:
    found = set()
    for task, (row, regime) in itertools.product(free.TASK_NAMES, free.ROWS):
        stored = STORE.read(*free.names(task, row.name))
        if not stored:
            continue
        found.add((task, row.name))
        assert stored["regime"] == regime.name
        assert stored["protocol"]["setting"] == rounded(row.arguments({"steps": TASKS[task].steps}))
        assert [run["seed"] for run in stored["final"]] == list(free.ALL_SEEDS)
    assert {(task, name) for task in free.TASK_NAMES for name in free.BY_NAME if name != "newton-cosine"} <= found
