"""Settings carried over mean what the formulas say; long runs resume; their tables say what the results say."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import torch

from benchmarks.training import ablation, carried_scores, long, report_carried, scores, train, transfer
from benchmarks.training.long import LONG, REGIMES
from benchmarks.training.long_rows import ROWS, nanogpt
from benchmarks.training.optimizers import OPTIMIZERS, Row, alone, fixed
from benchmarks.training.results import OtherProtocolError, Store
from benchmarks.training.schedules import COSINE_ONLY, NANOGPT, Regime, warmup_cosine
from benchmarks.training.study import settings
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import final_run, load
from conformance_tests.benchmarks.training_line import CPU, Only, line

STORE = Store()


def trajectory(
    row: Row,
    setting: dict[str, Any],
    schedule: Callable[[int], float],
    *,
    gradient: bool = True,
    steps: int = 60,
) -> torch.Tensor:
    """Return the iterates on a function of two variables, in float64."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer, _ = row.make(Only(parameter), None, **row.arguments(setting))
    peak, iterates = optimizer.param_groups[0]["lr"], []
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = peak * schedule(k)
        optimizer.zero_grad()
        ((parameter.cos() + parameter.square()).sum() * gradient).backward()
        optimizer.step()
        iterates.append(parameter.detach().clone())
    return torch.stack(iterates)


def up_from_zero_and_back(step: int) -> float:
    return min(step, 59 - step) / 30


@pytest.mark.parametrize("name", [*carried_scores.LEADS, "innaprop"])
def test_decay_is_as_strong_as_adamws(name: str) -> None:
    setting = settings(OPTIMIZERS["adamw"].space, 3)[2]
    ends = [
        trajectory(row, setting, up_from_zero_and_back, gradient=False)
        for row in (transfer.BY_NAME["adamw"], transfer.BY_NAME[name])
    ]
    assert setting["weight_decay"] > 0
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_alpha_and_beta_are_those_of_momentum_and_lead_at_a_constant_lr() -> None:
    setting = settings(OPTIMIZERS["adamw"].space, 3)[2]
    rows = (transfer.BY_NAME["innaprop"], transfer.BY_NAME["innaprop-lead-m"])
    ends = [trajectory(row, setting, lambda _: 1.0) for row in rows]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-10)


# --- the ablations ---------------------------------------------------------------------------------------------------


def test_a_corrected_schedule_takes_adamws_correction_away() -> None:
    """AdamW with the factor 1 - m^k is AdamW whose first moment is not corrected."""
    schedule = ablation.corrected(lambda steps, setting: lambda _: 1.0, -1)(10, {"forget": 0.1})
    assert [schedule(k) for k in range(3)] == pytest.approx([1 - 0.9, 1 - 0.9**2, 1 - 0.9**3])
    schedule = ablation.corrected(lambda steps, setting: lambda _: 1.0, 1)(10, {"forget": 0.1})
    assert schedule(0) == pytest.approx(10)
    assert COSINE_ONLY.schedule(10, {})(0) == 1


def test_what_an_ablation_does_not_change_is_among_the_transfers() -> None:
    found = [(question, run) for (question, _), cell in ablation.runs(TASKS["digits"], STORE).items() for run in cell]
    assert {(question, run.row.name) for question, run in found if run.names[0] == "transfer"} == {
        (question, row.name) for question in ("warmup", "batch") for row in ablation.ROWS
    }
    changed = [run.names for _, run in found if run.names[0] != "transfer"]
    assert len(set(changed)) == len(changed) == 13


# --- scores ----------------------------------------------------------------------------------------------------------


def final(seed: int, *validation: float | None, test: float = 90.0) -> dict[str, Any]:
    evaluations = [
        {"step": 100 * i, "seconds": 1.0, "train": 0.5, "validation": loss} for i, loss in enumerate(validation, 1)
    ]
    return {"seed": seed, "finished": validation[-1] is not None, "test": test, "evaluations": evaluations}


def test_steps_are_those_of_the_mean_curve_interpolated() -> None:
    mean = scores.curve([final(1, 0.8, 0.6, 0.2), final(2, 0.8, 0.2, 0.2)])
    assert mean.losses == pytest.approx((0.8, 0.4, 0.2))
    assert mean.steps_to(0.3) == pytest.approx(250)
    assert mean.steps_to(0.9) == 100
    assert mean.steps_to(0.1) == math.inf


def test_a_diverged_seed_reaches_nothing_and_is_behind() -> None:
    peers = [final(1, 0.8, 0.4, 0.2), final(2, 0.8, 0.4, 0.2)]
    own = carried_scores.compare([final(1, 0.8, 0.1, 0.1), final(2, 0.8, None)], peers)
    assert own.sooner == -math.inf
    assert own.behind
    assert report_carried.saved(own) == "not reached"
    assert report_carried.ends(own.validation) == "diverged"


def test_the_range_of_seeds_stands_beside_the_mean() -> None:
    peers = [final(1, 0.8, 0.4, 0.2), final(2, 0.8, 0.4, 0.2)]
    own = carried_scores.compare([final(1, 0.8, 0.2, 0.1), final(2, 0.8, 0.4, 0.3)], peers)
    assert own.by_seed == (pytest.approx(1 / 3), -math.inf)
    assert report_carried.seeds_range(own) == " (not reached … +33 %)"
    assert report_carried.seeds_range(carried_scores.compare(peers[:1], peers[:1])) == ""


def test_behind_is_measured_by_the_spread_of_seeds() -> None:
    peers = [final(1, 0.8, 0.19), final(2, 0.8, 0.21)]
    near, far = ([final(1, 0.8, x), final(2, 0.8, x)] for x in (0.21, 0.22))
    assert not carried_scores.compare(near, peers).behind
    assert carried_scores.compare(far, peers).behind
    assert carried_scores.compare([final(1, 0.8, 0.2), final(2, 0.8, 2.0)], peers).behind  # not excused by its own


def test_a_row_is_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"final": [final(1, 0.5), final(2, 0.7)]}, *long.names("gpt-2000", "adamw"))
    store.write({"final": [final(2, 0.7), final(3, 0.1)]}, *long.names("gpt-2000", "nadam"))
    found = carried_scores.compared(store, "gpt-2000", "nadam", "adamw")
    assert found is not None
    assert (found.seeds, found.peer.mean, found.validation.mean) == (1, 0.7, 0.7)
    assert carried_scores.compared(store, "gpt-2000", "innaprop-3", "adamw") is None


# --- the long runs ---------------------------------------------------------------------------------------------------


def short_line() -> Task:
    """Return a task with the records of a long one that takes milliseconds: a line through points."""
    x = torch.linspace(-1, 1, 40)[:, None]
    split = (x, 2 * x[:, 0])
    return replace(
        line(lambda: split),
        fit=lambda: (split, split),
        steps=20,
        evaluations=4,
        validation_subset=lambda s: (s[0][::2], s[1][::2]),
        final_losses=True,
    )


REGIME = Regime("short", "short", lambda steps, _: warmup_cosine(steps, 2))
ROW = fixed("adamw", "AdamW", nanogpt(torch.optim.AdamW), {"lr": 0.1, "weight_decay": 0.1})


def test_the_schedule_of_long_runs_is_that_of_nanogpt() -> None:
    schedule = NANOGPT.schedule(2000, {})
    factors = [schedule(step) for step in range(2000)]
    assert factors[0] == pytest.approx(1 / 101)
    assert factors[100] == 1
    assert factors[1050] == pytest.approx(0.55)
    assert factors[-1] == pytest.approx(0.1, abs=1e-5)


def test_matrices_decay_and_vectors_do_not() -> None:
    groups = [
        row.make(torch.nn.Linear(3, 2), None, **row.arguments({}))[0].param_groups
        for row in (ROWS["gpt-2000"]["adamw"], ROWS["mnist-20"]["adamw"])
    ]
    assert [(group["params"][0].ndim, group["weight_decay"]) for group in groups[0]] == [(2, 0.1), (1, 0.0)]
    assert [(len(group["params"]), group["weight_decay"]) for group in groups[1]] == [(2, 0.01)]


def test_nanogpts_gradients_are_clipped() -> None:
    """SGD with lr 1 moves by the gradient: of two parameters, each with 5, it has norm 1 after clipping."""
    model = torch.nn.Linear(1, 1)
    optimizer, _ = nanogpt(torch.optim.SGD)(model, None, lr=1.0, weight_decay=0.0)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    for p in model.parameters():
        p.grad = torch.full_like(p, 5.0)
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(before - after, torch.full((2,), math.sqrt(0.5)))


def test_a_long_row_is_extended_by_seeds_and_resumed(tmp_path: Path) -> None:
    store, task = Store(tmp_path), short_line()
    reported: list[int] = []
    for seed in (2, 1, 2):
        stored = train.complete(long.run(task, REGIME, ROW, seed), store, CPU, reported.append)
    assert [run["seed"] for run in stored["final"]] == [1, 2]
    assert sum(reported) == 3 * task.steps
    first = stored["final"][0]
    assert len(first["evaluations"]) == task.evaluations
    assert first["evaluations"][-1]["validation"] < first["evaluations"][0]["validation"]
    assert first["evaluations"][-1]["validation"] != first["validation"]  # the end is evaluated on the whole split
    again = final_run(long.run(task, REGIME, ROW), load(task, CPU), 2)
    assert again["test"] == stored["final"][1]["test"]
    other = fixed("adamw", "AdamW", ROW.make, {"lr": 0.2, "weight_decay": 0.1})
    with pytest.raises(OtherProtocolError, match="different: setting"):
        train.complete(long.run(task, REGIME, other, 3), store, CPU)


def test_a_long_run_that_diverges_says_so(tmp_path: Path) -> None:
    task = short_line()
    row = fixed("sgd", "SGD", alone(torch.optim.SGD), {"lr": 1e20})
    reported: list[int] = []
    stored = train.complete(long.run(task, REGIME, row, 1), Store(tmp_path), CPU, reported.append)
    (run,) = stored["final"]
    assert not run["finished"]
    assert sum(reported) == task.steps
    assert json.loads(Store(tmp_path).path(*long.names("line", "sgd")).read_text())["final"][0]["test"] is None


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, rows in ROWS.items() for name in rows])
def test_every_long_row_makes_a_step(task: str, name: str) -> None:
    row, model = ROWS[task][name], torch.nn.Linear(3, 2)
    arguments = row.arguments({})
    optimizer, _ = row.make(model, None, **arguments)
    before = model.weight.detach().clone()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)
    assert {group["weight_decay"] for group in optimizer.param_groups} <= {arguments.get("weight_decay", 0.0), 0.0}


def test_committed_long_results_are_of_this_code() -> None:
    found = 0
    for task, rows in ROWS.items():
        for row in rows.values():
            run = long.run(LONG[task], REGIMES[task], row)
            stored = STORE.resume(run.protocol(), *run.names)
            found += bool(stored)
            counts = [len(final["evaluations"]) for final in stored.get("final", []) if final["finished"]]
            assert set(counts) <= {LONG[task].evaluations}
    assert found


def test_committed_transfers_are_of_this_code() -> None:
    """The stored settings are those that follow now from the peers' tuned ones."""
    found = set()
    for task in TASKS:
        rows = transfer.runs(TASKS[task], transfer.BY_NAME.values(), STORE)
        assert len(rows) == len(transfer.BY_NAME)
        for run in rows:
            stored = STORE.read(*run.names)
            if not stored:
                continue
            found.add((task, run.row.name))
            assert [final["seed"] for final in stored["final"]] == list(transfer.ALL_SEEDS)
            for name, value in run.arguments.items():
                assert stored["protocol"]["setting"][name] == pytest.approx(value, rel=1e-3)
    assert {(task, name) for task in TASKS for name in ("adamw", *carried_scores.LEADS)} <= found


def test_the_command_runs_all_rows_of_a_seed_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(long.LONG, "gpt-2000", replace(short_line(), name="gpt-2000"))
    arguments = ["--task", "gpt-2000", "--optimizer", "adamw,nadam", "--seeds", "1,2", "--out", str(tmp_path)]
    assert long.main(arguments) == 0
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert lines == [f"gpt-2000, {row}, seed {seed}" for seed in (1, 2) for row in ("adamw", "nadam")]


def test_tables_leave_out_what_was_not_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for path in STORE.folder.glob("*.json"):
        if not path.name.startswith(("long_gpt-2000_innaprop-5", "ablation_digits")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before, after = report_carried.blocks(STORE), report_carried.blocks(store)
    assert before.keys() == after.keys()
    assert "lead 5" in before["long-gpt-2000"]
    assert "lead 5" not in after["long-gpt-2000"]


def test_the_warm_up_of_no_steps_starts_at_the_peak() -> None:
    assert warmup_cosine(10, 0)(0) == 1
