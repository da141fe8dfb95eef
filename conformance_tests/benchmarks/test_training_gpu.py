"""CIFAR-10 on a GPU, here on a CPU: the command plans, trains and resumes."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import numpy as np
import torch

from benchmarks.training import cifar, data, gpu, long, models, report_carried
from benchmarks.training import train as training
from benchmarks.training.long import LONG, WIDE_NIN
from benchmarks.training.long_rows import CIFAR
from benchmarks.training.results import Store
from benchmarks.training.schedules import COSINE_ONLY
from conformance_tests.benchmarks.training_line import CPU, Only

STORE = Store()
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}


@pytest.fixture
def random_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put random images in CIFAR-10's place, and networks that train in milliseconds."""

    def images(train: int, test: int) -> data.Images:
        draw = np.random.default_rng(0)
        x = draw.integers(0, 256, (train + test, 32, 32, 3), np.uint8)
        y = draw.integers(0, 10, train + test)
        return data.Images(x[:train], y[:train], x[train : train + 20], y[train : train + 20])

    monkeypatch.setattr(cifar.data, "cifar10", images)
    cifar.fit.cache_clear()
    # narrower ResNets in channels_last crash torch 2.13's convolutions on a CPU
    makes = {"nin": lambda: models.network_in_network(8, dropout=0.5), "resnet18": lambda: models.resnet18(8)}
    for name, make in makes.items():
        monkeypatch.setitem(gpu.NETWORKS, name, replace(gpu.NETWORKS[name], make=make))
    yield
    cifar.fit.cache_clear()


@pytest.mark.usefixtures("random_images")
def test_the_gpu_command_trains_every_row_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--minutes", "0.001", "--samples", "256", "--out", str(tmp_path)]
    assert gpu.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "nin: " in shown
    assert shown.count("test ") == len(gpu.NETWORKS) * len(CIFAR)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert {path.name for path in files} == {
        f"long_cifar10-{network}-gpu_{row}.json" for network in gpu.NETWORKS for row in CIFAR
    }
    stored = Store(tmp_path).read("long", "cifar10-nin-gpu", "inna-1.9")
    assert stored["protocol"]["epochs"] == 1
    assert stored["protocol"]["steps"] == 1
    assert stored["protocol"]["device"].startswith("CPU")
    tables = report_carried.long_tables(Store(tmp_path))
    assert all(row.title in tables[f"long-{n.task}"] for row in CIFAR.values() for n in gpu.NETWORKS.values())

    assert gpu.main([*arguments, "--minutes", "100"]) == 0  # nothing is missing, so nothing is measured
    assert "s an epoch" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json")} == files
    assert gpu.main([*arguments, "--samples", "512"]) == 1
    assert "different: samples, steps" in capsys.readouterr().err


@pytest.mark.usefixtures("random_images")
def test_the_gpu_command_takes_a_number_of_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--network", "nin", "--optimizer", "adamw", "--seeds", "1,2"]
    assert gpu.main([*rows, "--device", "cpu", "--epochs", "3", "--samples", "256", "--out", str(tmp_path)]) == 0
    assert "s an epoch" not in capsys.readouterr().out
    stored = Store(tmp_path).read("long", "cifar10-nin-gpu", "adamw")
    assert [len(run["evaluations"]) for run in stored["final"]] == [3, 3]


def test_runs_with_given_settings_need_no_optuna() -> None:
    modules = ", ".join(f"benchmarks.training.{name}" for name in ("gpu", "starts", "ablation", "free", "sweep"))
    code = f"import sys; sys.modules['optuna'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_results_of_a_gpu_stand_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "device_name", lambda device: "a GPU")
    task = LONG["gpt-10000"]
    moved = long.on_device(task, torch.device("cuda"))
    assert moved.name == "gpt-10000-gpu"
    assert moved.protocol["device"] == "a GPU"
    assert long.on_device(task, CPU) is task


def test_gpu_runs_have_equal_parts_of_the_time() -> None:
    assert gpu.epochs_of({"a": 1.0, "b": 2.0}, 100.0, 4) == {"a": 11, "b": 5}  # 0.95 * 100 / 8 seconds a run
    assert gpu.epochs_of({"a": 1.0}, -3.0, 4) == {"a": 1}
    assert gpu.epochs_of({}, 100.0, 4) == {}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--minutes", "0", "expected a number of minutes above 0"),
        ("--minutes", "soon", "expected a number of minutes above 0"),
        ("--samples", "255", "expected 256 to 45000"),
    ],
)
def test_the_gpu_command_refuses_budgets_out_of_range(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.parse([option, value])
    assert message in capsys.readouterr().err


def test_the_gpu_table_says_that_nothing_was_run(tmp_path: Path) -> None:
    assert report_carried.long_tables(Store(tmp_path))["long-cifar10-nin-gpu"] == "No results are stored.\n"


def test_gpu_images_are_shifted_and_mirrored() -> None:
    """Each is a window of itself with a margin, or the mirror image of one; over many images all are drawn."""
    count, side = 2000, 6
    x = torch.arange(2 * side * side, dtype=torch.float32).add(1).reshape(1, 2, side, side)
    padded = np.pad(x[0].numpy(), ((0, 0), (4, 4), (4, 4)))
    windows = {}
    for i, j in itertools.product(range(9), repeat=2):
        window = padded[:, i : i + side, j : j + side]
        windows[window.tobytes()] = (i, j, False)
        windows.setdefault(window[:, :, ::-1].copy().tobytes(), (i, j, True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = cifar.augmented(x.expand(count, -1, -1, -1))
    drawn = [windows[image.contiguous().numpy().tobytes()] for image in images]
    assert len(set(drawn)) == 2 * 81
    assert 0.45 < np.mean([mirrored for *_, mirrored in drawn]) < 0.55


def test_gpu_images_are_augmented_in_training_only() -> None:
    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    model, x = Same(), torch.arange(3 * 32 * 32).remainder(255).to(torch.uint8).reshape(1, 3, 32, 32)
    torch.testing.assert_close(cifar.logits(model.eval(), x), x.flatten(1) / 127.5 - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(cifar.logits(model.train(), x), x.flatten(1) / 127.5 - 1)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        # Lin et al.'s has 966,986; batch normalization has one more number than a bias for each of 1,408 channels
        (WIDE_NIN, 966_986 + 1_408),
        (models.resnet18, 11_173_962),
    ],
)
def test_gpu_networks_have_the_published_size(make: Callable[[], torch.nn.Module], parameters: int) -> None:
    model = make()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_gpu_rows_of_inna_and_sgd_have_the_same_regularization() -> None:
    """At a constant lr INNA with lead 1 + m is SGD with Nesterov's momentum, L2 term included."""
    ends = []
    for name in ("momentum", "inna-1.9"):
        p = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer, _ = CIFAR[name].make(Only(p), None, **CIFAR[name].arguments({}))
        for _ in range(50):
            optimizer.zero_grad()
            p.cos().sum().backward()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("random_images")
@pytest.mark.parametrize("row", CIFAR)
def test_gpu_runs_keep_to_their_device(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's meta device stands for a GPU: operations raise where devices mix, but tensors have no values."""
    meta, read = torch.device("meta"), []

    def number(tensor: torch.Tensor) -> int:
        read.append(tensor.device.type)
        return 1

    for module, name in ((training, "float"), (cifar, "int")):
        monkeypatch.setattr(module, name, number, raising=False)
    task = gpu.task_of(gpu.NETWORKS["nin"], 2, 256, meta)
    training.final_run(long.run(task, COSINE_ONLY, CIFAR[row]), training.load(task, meta), 1)
    assert len(read) >= 2 * task.evaluations + 4
    assert set(read) == {"meta"}


def test_gpu_runs_compute_in_bfloat16_with_float32_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's autocast stands for a GPU's."""
    monkeypatch.setattr(cifar, "autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = models.network_in_network(8).eval(), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    narrow = cifar.logits(model, x)
    monkeypatch.undo()
    wide = cifar.logits(model, x)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, narrow.bfloat16().float())
    assert not torch.equal(narrow, wide)
    torch.testing.assert_close(narrow, wide, rtol=0.05, atol=0.05)
    narrow.sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_committed_gpu_results_are_complete() -> None:
    for network in gpu.NETWORKS.values():
        found = [stored for row in CIFAR if (stored := STORE.read(*long.names(network.task, row)))]
        assert len({str({**stored["protocol"], "setting": None}) for stored in found}) <= 1
        assert all(stored["protocol"]["samples"] == cifar.TRAIN for stored in found)
