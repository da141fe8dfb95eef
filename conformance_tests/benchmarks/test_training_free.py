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

from benchmarks.training import free, report_free
from benchmarks.training.results import Store, rounded
from benchmarks.training.tasks import TASKS, Task
from conformance_tests.benchmarks.training_line import line

CPU = torch.device("cpu")
STORE = Store()


def short_line() -> Task:
    x = torch.linspace(-1, 1, 40)[:, None]
    split = (x, 2 * x[:, 0])
    return replace(line(lambda: split), fit=lambda: (split, split), steps=50)


@pytest.mark.parametrize("row", free.FREES, ids=lambda row: row.name)
def test_free_rows_train_and_resume(row: free.Free, tmp_path: Path) -> None:
    """Schedule-Free raises an error by itself if it steps in evaluation mode."""
    if row.package:
        pytest.importorskip(row.package, reason=f"the row needs {row.package}")
    store = Store(tmp_path)
    stored = free.complete(short_line(), row, store, CPU)
    assert [run["seed"] for run in stored["final"]] == list(free.ALL_SEEDS)
    for run in stored["final"]:
        assert run["looks"][-1]["validation"] < run["looks"][0]["validation"]
    assert (row.package or "package") in str(stored.get("package", "package"))
    before = store.path(*free.names("line", row)).read_bytes()
    free.complete(short_line(), row, store, CPU)
    assert store.path(*free.names("line", row)).read_bytes() == before


def test_a_free_model_is_looked_at_where_schedule_free_averages() -> None:
    """With a constant gradient Adam's steps have size lr; x is the mean of the iterates z, not the last one."""
    pytest.importorskip("schedulefree", reason="the row needs it")
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    optimizer, seen = free.schedule_free(model, lambda: torch.zeros(()), lr=0.1, betas=(0.9, 0.999))
    one, steps = torch.ones(1, 1, dtype=torch.float64), 10
    seen.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (-seen(one)).sum().backward()
        optimizer.step()
    z, x = 0.1 * steps, 0.1 * (steps + 1) / 2  # Adam's steps are lr
    y = 0.1 * z + 0.9 * x
    assert model.weight.item() == pytest.approx(y, rel=1e-6)
    seen.eval()
    assert seen(one).item() == pytest.approx(x, rel=1e-6)
    seen.train()
    assert seen(one).item() == pytest.approx(y, rel=1e-6)


def test_free_tables_have_a_row_for_each_optimizer_with_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert len(report_free.blocks(store)["free"].splitlines()) == 2
    final = {"seed": 1, "finished": True, "test": 91.0, "looks": [{"seconds": 2.0, "validation": 0.25}]}
    store.write({"final": [final, {**final, "finished": False}]}, "free", "digits", "prodigy")
    row = report_free.blocks(store)["free"].splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *(free.BY_NAME["prodigy"].title, "2", "diverged (0.25 … diverged)"),
        *[""] * (len(free.FREE_TASKS) - 1),
    ]
    assert "91.00; 2.0 s" in report_free.blocks(store)["free-test"]


def test_committed_free_results_are_of_this_code() -> None:
    found = set()
    for task, row in itertools.product(free.FREE_TASKS, free.FREES):
        stored = STORE.read(*free.names(task, row))
        if not stored:
            continue
        found.add((task, row.name))
        assert stored["regime"] == row.regime.name
        assert stored["protocol"]["setting"] == rounded(row.setting(TASKS[task]))
        assert [run["seed"] for run in stored["final"]] == list(free.ALL_SEEDS)
    assert {(task, name) for task in free.FREE_TASKS for name in free.BY_NAME if name != "newton-cosine"} <= found
