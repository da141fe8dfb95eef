"""The figures of docs/dynamics.md are what the command draws, and show what the page says of them."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import re
from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the figures need matplotlib")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

from benchmarks.dynamics import phase_portraits, side_by_side, spurious_points, stability, training_energy, valley
from benchmarks.dynamics.command import FIGURES, FOLDER, draw
from benchmarks.dynamics.look import LOOKS
from inna_core.dynamics import largest_stable_lr

HINT = "run python -m benchmarks dynamics"
FILES = [f"{name}-{look.name}.svg" for name in FIGURES for look in LOOKS]

IDENTIFIER = re.compile(r"[mp][0-9a-f]{10}")
"""Of markers and clipping paths: matplotlib makes them of what they hold."""

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def differences(ours: str, committed: str) -> float:
    """Return by how much two drawings differ at most, in points; infinity if in anything but coordinates."""
    ours, committed = (IDENTIFIER.sub("", text) for text in (ours, committed))
    if NUMBER.split(ours) != NUMBER.split(committed):
        return np.inf
    numbers = [np.asarray(NUMBER.findall(text), dtype=np.float64) for text in (ours, committed)]
    return float(np.abs(numbers[0] - numbers[1]).max())


def test_differences_are_seen() -> None:
    line = '<path d="M 1.5 2.25" id="m0123456789"/>'
    assert differences(line, line.replace("m0123456789", "m9876543210")) == 0
    assert differences(line, line.replace("2.25", "2.5")) == 0.25
    assert differences(line, line.replace("path", "line")) == np.inf


@pytest.mark.nightly
def test_the_command_draws_the_committed_figures(tmp_path: Path) -> None:
    """To 0.01 points: the last digits depend on the machine's exp and matrix products."""
    if not FOLDER.exists():
        pytest.skip("the docs are not here")
    drawn_with = f"Matplotlib v{matplotlib.__version__},"
    if drawn_with not in (FOLDER / FILES[0]).read_text(encoding="utf-8"):
        pytest.skip(f"the figures were drawn with another version than {matplotlib.__version__}")
    for path in draw(tmp_path):
        committed = (FOLDER / path.name).read_text(encoding="utf-8")
        assert differences(path.read_text(encoding="utf-8"), committed) < 0.01, f"{path.name}: {HINT}"


def test_every_figure_is_there_and_shown_for_light_and_dark_pages() -> None:
    if not FOLDER.exists():
        pytest.skip("the docs are not here")
    assert {path.name for path in FOLDER.glob("dynamics-*")} == set(FILES), HINT
    page = (FOLDER.parent / "dynamics.md").read_text(encoding="utf-8")
    shown = re.findall(r'(srcset|src)="figures/([^"]+)"', page)
    assert shown == [
        pair for name in FIGURES for pair in (("srcset", f"{name}-dark.svg"), ("src", f"{name}-light.svg"))
    ]
    assert all((FOLDER / name).stat().st_size < 150_000 for name in FILES)


def crossings(theta: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(valley.across(theta) > 0)))


def test_beta_damps_across_the_valley_and_alpha_along_it() -> None:
    swinging, damped, slow = (run.theta for run in phase_portraits.runs().values())
    assert crossings(swinging[:1500]) > 15
    assert crossings(damped[:1500]) == crossings(slow[:1500]) == 2
    overshoot = [theta[:, 0].max() - 1 for theta in (swinging, damped, slow)]
    assert overshoot[0] > 0.3 > overshoot[1] > 0.2 > 0.1 > overshoot[2]
    reached = [int(np.argmax(theta[:, 0] > 0.9)) for theta in (damped, slow)]
    assert reached[1] > 1.4 * reached[0]


def test_more_lead_settles_sooner() -> None:
    away = [np.abs(valley.across(run.theta)) > 0.02 for run in side_by_side.runs().values()]
    heavy_ball, nesterov, inna = (int(np.flatnonzero(far[:200]).max()) for far in away)
    assert heavy_ball > 190
    assert 50 < nesterov < 110
    assert inna < 20


def test_the_measured_limits_are_the_analytic_ones() -> None:
    for given, found in zip((stability.DAMPINGS, *stability.LEADS), stability.measured(), strict=True):
        limits = [largest_stable_lr(float(h), **given) for h in stability.MEASURED_AT]
        np.testing.assert_allclose(found, limits, rtol=5e-3)


def test_the_energy_falls_in_each_step_of_the_full_gradient_and_the_loss_does_not() -> None:
    full, batches, unstable = (training_energy.curves(training) for training in training_energy.TRAININGS)
    assert np.diff(full[1]).max() < 0 < np.diff(full[0]).max()
    assert (np.diff(batches[1]) > 0).mean() > 0.2
    assert np.abs(batches[1] / full[1] - 1).max() < 0.25
    assert unstable[1][-1] > 1e4 * unstable[1][0]


def test_inna_passes_the_spurious_point_at_which_gradient_descent_stops() -> None:
    descent, inna = spurious_points.runs_that_land_on_0()
    assert descent.theta[4] == inna.theta[4] == 0
    assert spurious_points.slope_1(np.zeros(1)) == spurious_points.slope_2(np.zeros(1)) == 0
    assert (descent.theta[4:] == 0).all()
    ends = {name: path[-1] for name, path in spurious_points.runs().items()}
    assert ends.pop("gradient descent that lands on 0") == ends.pop("INNA from rest at 0") == 0
    assert len(ends) == 2
    assert all(abs(end - spurious_points.MINIMUM) < 0.1 for end in ends.values())
