"""The quickstart fails when it should, and its reference gradient is right."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

for _package in ("numpy", "sklearn", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the quickstart needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import array_api_compat.numpy as xp
import numpy as np

from benchmarks.quickstart import command
from benchmarks.quickstart.bounds import ACCURACY, DEVIATION, deviations, violations
from benchmarks.quickstart.hosts.arrays import loss_and_gradient
from benchmarks.quickstart.problem import digits
from benchmarks.quickstart.processes import Trajectory
from benchmarks.quickstart.rows import REFERENCE, Host

CHECKOUT = Path(__file__).resolve().parents[2]

NUMPY = Trajectory(
    host="numpy",
    device="cpu",
    seconds=1.0,
    accuracy=0.98,
    losses=np.asarray([1.0, 0.1]),
    steps=np.asarray([10, 20]),
    weights=np.asarray([[1.0, -4.0], [2.0, 0.5]]),
)


def moved(by: float) -> np.ndarray:
    return NUMPY.weights + np.asarray([[0.0, 0.0], [0.0, by]])


def test_deviation_is_relative_to_the_largest_reference_weight() -> None:
    other = replace(NUMPY, host="torch", weights=moved(0.5))
    np.testing.assert_array_equal(deviations(other, NUMPY), [0.0, 0.25])


def test_a_host_inside_the_bounds_passes() -> None:
    assert violations(NUMPY, NUMPY) == []
    assert violations(replace(NUMPY, host="torch", weights=moved(1.9 * DEVIATION)), NUMPY) == []


@pytest.mark.parametrize("by", [2 * DEVIATION, -1.0, np.nan, np.inf])
def test_a_deviating_host_is_named(by: float) -> None:
    (line,) = violations(replace(NUMPY, host="torch", weights=moved(by)), NUMPY)
    assert line.startswith("torch: deviation")


@pytest.mark.parametrize("accuracy", [ACCURACY - 0.001, np.nan])
def test_a_low_accuracy_is_named(accuracy: float) -> None:
    low = replace(NUMPY, accuracy=accuracy)
    assert violations(low, low)[0].startswith("numpy: test accuracy")


def test_an_accuracy_other_than_the_reference_s_is_named() -> None:
    (line,) = violations(replace(NUMPY, host="torch", accuracy=0.99), NUMPY)
    assert line.startswith("torch: test accuracy 99.00%")
    assert "numpy's 98.00%" in line


def test_the_gradient_by_hand_is_that_of_the_loss() -> None:
    problem = digits(epochs=1)
    batch = problem.batches[0, 0]
    x, targets = problem.x[batch], np.eye(problem.b2.size)[problem.y[batch]]
    rng = np.random.default_rng(0)
    # Biases away from zero, where a wrong sign or factor in them would show as well.
    weights = [w + 0.1 * rng.standard_normal(w.shape) for w in problem.weights]
    _, gradient = loss_and_gradient(xp, weights, x, targets)

    h = 1e-5
    for i, w in enumerate(weights):
        difference = np.empty_like(w)
        for index in np.ndindex(w.shape):
            sides = []
            for sign in (1, -1):
                shifted = w.copy()
                shifted[index] += sign * h
                sides.append(loss_and_gradient(xp, [*weights[:i], shifted, *weights[i + 1 :]], x, targets)[0])
            difference[index] = (sides[0] - sides[1]) / (2 * h)
        # Truncation h^2 |loss'''| / 6 and rounding eps / h are both near 1e-10.
        np.testing.assert_allclose(gradient[i], difference, rtol=0, atol=2e-9)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command_line = [sys.executable, "-m", "benchmarks.quickstart", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command_line, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def test_numpy_alone_passes_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = run("--hosts", "numpy", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reference" in done.stdout
    assert (out / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_too_little_training_fails_on_the_accuracy(tmp_path: Path) -> None:
    done = run("--hosts", "numpy", "--epochs", 1, "--out", tmp_path)
    assert done.returncode == 1
    assert "FAILED numpy: test accuracy" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hosts", "nympy"), r"--hosts: 'nympy' (expected some of numpy,torch,"),
        (("--epochs", "0"), "--epochs: '0' (expected a whole number from 1 to 1000)"),
        (("--out", __file__), "(expected a folder, or a name that is free for one)"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.parse(arguments)
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


ROWS = {
    # It trains like NumPy until it says that its weights are a little larger.
    "deviating": """
from benchmarks.quickstart.hosts import arrays

class Wrong:
    def __init__(self, recorder): self.recorder = recorder
    def step(self, weights): self.recorder.step(lambda: [w * (1 + 1e-8) for w in weights()])
    def epoch(self, loss): self.recorder.epoch(loss)

def train(option, problem, recorder):
    print("chatter on standard output")
    return arrays.train("numpy", problem, Wrong(recorder))
""",
    "crashing": """
def train(option, problem, recorder):
    raise ArithmeticError("the matrix is haunted")
""",
    "elsewhere": """
from benchmarks.quickstart.recording import UnavailableError

def train(option, problem, recorder):
    raise UnavailableError("no such device")
""",
}


@pytest.fixture
def row(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    name = request.param
    (tmp_path / f"{name}_row.py").write_text(ROWS[name], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    host = Host(name, f"{name}_row")
    monkeypatch.setattr(command, "HOSTS", (REFERENCE, host))
    return host


@pytest.mark.parametrize(
    ("row", "asked", "status", "said"),
    [
        ("deviating", (), 1, "FAILED deviating: deviation 1.0e-08 from numpy"),
        ("crashing", (), 1, "the matrix is haunted"),
        ("elsewhere", (), 0, "elsewhere: not on this machine — no such device"),
        ("elsewhere", ("--hosts", "elsewhere"), 1, "FAILED elsewhere: asked for, did not run"),
    ],
    indirect=["row"],
)
def test_exit_status(
    row: Host, asked: tuple[str, ...], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*asked, "--out", str(tmp_path)]) == status
    assert said in capsys.readouterr().out


def test_a_missing_host_says_how_to_install_it() -> None:
    host = Host("torch", "unused", packages=("numpy", "surely_not_installed"), install='-e ".[torch]"')
    assert host.missing() == ('torch: not installed (no surely_not_installed) — python -m pip install -e ".[torch]"')
