"""Scores and pages of the training benchmark say what the stored results say."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import math
from pathlib import Path
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")


import benchmarks.__main__ as entry
from benchmarks.training import figures, repeat, report, report_short, report_sweeps, scores, study
from benchmarks.training.optimizers import (
    OPTIMIZERS,
    TUNED,
)
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import Study, settings
from benchmarks.training.tasks import TASKS
from conformance_tests.benchmarks.training_line import CPU
from conformance_tests.tiers import nightly_but

STORE = Store()
COMMITTED = scores.studies(STORE)


def final(*validation: float | None, test: float = 90.0) -> dict[str, Any]:
    evaluations = [
        {"step": 100 * i, "seconds": 1.0 * i, "train": 0.5, "validation": loss} for i, loss in enumerate(validation, 1)
    ]
    return {"finished": validation[-1] is not None, "test": test, "evaluations": evaluations}


def test_steps_to_a_target_are_those_of_the_median_seed() -> None:
    finals = [final(0.9, 0.4, 0.3, 0.2), final(0.9, 0.8, 0.3, 0.5), final(0.9, 0.8, 0.7, 0.1)]
    found = scores.score({"final": finals}, 0.4)
    assert (found.steps, found.seconds, found.reached) == (300, 3.0, 3)
    assert (found.validation.median, found.validation.low, found.validation.high) == (0.2, 0.1, 0.5)
    assert scores.score({"final": [finals[0], final(0.9, None), final(0.8, None)]}, 0.4).steps == math.inf


def test_the_target_is_the_better_peers_at_three_quarters() -> None:
    peer = [final(*[1.0] * 2, 0.6, 0.1), final(*[1.0] * 2, 0.5, 0.1), final(*[1.0] * 2, 0.4, 0.1)]
    other = [final(*[1.0] * 2, 0.7, 0.0)] * 3
    results: scores.Results = {
        ("digits", "cosine", "momentum"): {"final": peer},
        ("digits", "cosine", "adamw"): {"final": other},
    }
    assert scores.target(results, "digits", "cosine") == 0.5  # 400 steps: the evaluations at 100, 200 and 300 count


def test_committed_results_have_equal_budgets() -> None:
    assert COMMITTED, "no results"
    for task, regime in {key[:2] for key in COMMITTED}:
        studies = [stored for key, stored in COMMITTED.items() if key[:2] == (task, regime)]
        protocols = [{k: v for k, v in stored["protocol"].items() if k != "space"} for stored in studies]
        assert all(protocol == protocols[0] for protocol in protocols)
        assert len({len(stored["tuning"]) for stored in studies}) == 1
        assert all(len(stored["final"]) >= 3 for stored in studies)


def test_committed_results_are_of_this_code() -> None:
    """The stored protocols and settings are those that would be used now."""
    for (task, regime, row), stored in COMMITTED.items():
        assert task in TUNED[row].tasks
        assert regime in TUNED[row].regimes
        s = Study(TASKS[task], TUNED[row], REGIMES[regime], len(stored["tuning"]))
        assert STORE.resume(s.protocol(), *s.names)
        for trial, setting in zip(stored["tuning"], settings(s.space, s.trials), strict=True):
            for name, value in trial["setting"].items():
                assert value == pytest.approx(setting[name], rel=1e-4)


@pytest.mark.parametrize("row", nightly_but(("inna",), OPTIMIZERS))
def test_digits_are_repeated_within_their_spread(row: str) -> None:
    """Processors round differently, so not bit for bit."""
    stored = COMMITTED["digits", "cosine", row]
    losses = [final["evaluations"][-1]["validation"] for final in stored["final"]]
    for final in repeat.again(stored, CPU):
        assert 0.95 * min(losses) <= final["evaluations"][-1]["validation"] <= 1.05 * max(losses)


def test_the_repeat_tells_what_lies_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, names = Store(tmp_path), ("digits", "cosine", "sgd")
    arguments = ["--task", "digits", "--optimizer", "sgd", "--out", str(tmp_path)]
    assert repeat.main(arguments) == 1
    assert "nothing is stored" in capsys.readouterr().err
    store.write(STORE.read(*names), *names)
    before = store.path(*names).read_bytes()
    assert repeat.main(arguments) == 0
    assert "1 of 1 rows are repeated within their spread" in capsys.readouterr().out
    assert store.path(*names).read_bytes() == before
    other = store.read(*names)
    for final in other["final"]:
        final["test"] += 1
    store.write(other, *names)
    assert repeat.main(arguments) == 1
    assert "OUTSIDE" in capsys.readouterr().out


def test_an_optimizer_may_be_absent_from_a_task() -> None:
    """What is said of the others stays; its own cells are empty."""
    without: scores.Results = {key: stored for key, stored in COMMITTED.items() if key[::2] != ("digits", "inna")}
    for regime in REGIMES:
        tables = [
            table(results, regime).splitlines() for results in (COMMITTED, without) for table in (report_short.details,)
        ]
        assert [line for line in tables[0] if line not in tables[1]]
        assert all(line in tables[0] for line in tables[1])
        place = 3 + list(OPTIMIZERS).index("inna")
        for table in (
            report_short.overview,
            report_short.chosen_settings,
            report_short.robustness,
            report_short.pairs,
        ):
            before, after = (table(results, regime).splitlines() for results in (COMMITTED, without))
            assert len(before) == len(after)
        (row,) = [line for line in report_short.overview(without, regime).splitlines() if TASKS["digits"].title in line]
        assert row.split("|")[1:-1][place].strip() == ""
        figures.curves(without, regime)
        figures.plt.close("all")


def test_the_command_runs_what_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    planned = {planned.names for planned in study.parse([]).studies}
    declared = {(task, regime, row.name) for row in TUNED.values() for task in row.tasks for regime in row.regimes}
    assert planned == declared
    assert {planned.names for planned in study.parse(["--task", "cifar10", "--optimizer", "newton,sgd"]).studies} == {
        ("cifar10", regime, "sgd") for regime in REGIMES
    }
    with pytest.raises(SystemExit):
        study.parse(["--task", "cifar10", "--optimizer", "newton"])
    assert "newton (expected some that are run on the task cifar10" in capsys.readouterr().err


def test_the_pages_say_what_the_results_say() -> None:
    parts = report.blocks(STORE)
    for page in report.PAGES:
        text = page.read_text(encoding="utf-8")
        assert report.BLOCK.search(text), f"{page.name} has no generated part"
        assert report.rendered(text, parts) == text, f"{page.name}: run python -m benchmarks training-report"


def test_a_changed_result_changes_the_page(tmp_path: Path) -> None:
    for path in STORE.folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    store = Store(tmp_path)
    changed = store.read("digits", "cosine", "inna")
    changed["final"][0]["test"] = 12.34
    store.write(changed, "digits", "cosine", "inna")
    assert "12.34" in report.blocks(store)["details-cosine"]
    assert figures.digest(store) != figures.digest(STORE)

    swept = store.read("sweep", "digits", "decay")
    assert TASKS["digits"].title in report_sweeps.decay(store)
    store.write({**swept, "runs": swept["runs"][:-1]}, "sweep", "digits", "decay")
    assert TASKS["digits"].title not in report_sweeps.decay(store)  # a sweep that is not finished is left out


def test_the_figures_are_of_these_results(tmp_path: Path) -> None:
    drawn = figures.draw(STORE, tmp_path)
    assert drawn
    for path in drawn:
        committed = (report.FIGURES / path.name).read_bytes()
        assert figures.digest(STORE).encode() in committed, f"{path.name}: run python -m benchmarks training-report"
    linked = {path.name for path in drawn} & {path.name for path in report.FIGURES.glob("training-*.png")}
    pages = "".join(page.read_text(encoding="utf-8") for page in report.PAGES)
    assert all(f"figures/{name}" in pages for name in linked)


def test_the_entry_point_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["trianing"]) == 2
    assert "training-report" in capsys.readouterr().out
    monkeypatch.setattr(entry, "find_spec", lambda name: None if name == "sklearn" else object())
    assert entry.main(["training"]) == 2
    assert "pip install scikit-learn" in capsys.readouterr().err
