"""The data of the training benchmark are split, downloaded and named as they should be."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

for _package in ("torch", "numpy", "sklearn", "optuna", "scipy", "matplotlib", "rich"):
    pytest.importorskip(_package, reason=f"the training benchmark needs {_package}")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import numpy as np
import torch

from benchmarks.training import data, study, tasks
from benchmarks.training.tasks import EVALUATIONS, TASKS


def numbered(count: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return images of which each is distinguished from the others by its first three bytes."""
    images = np.zeros((count, *shape), np.uint8)
    flat, index = images.reshape(count, -1), np.arange(start, start + count)
    flat[:, 0], flat[:, 1], flat[:, 2] = index // 65536, index // 256 % 256, index % 256
    return images


def rows(split: tasks.Split) -> set[bytes]:
    return {x.contiguous().numpy().tobytes() for x in split[0]}


@pytest.mark.parametrize("name", list(TASKS))
def test_splits_are_disjoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros(70_000, np.int64)
    grey = data.Images(
        numbered(60_000, 0, (28, 28)), labels[:60_000], numbered(10_000, 60_000, (28, 28)), labels[:10_000]
    )
    monkeypatch.setattr(data, "mnist", lambda: grey)
    monkeypatch.setattr(data, "fashion", lambda: grey)
    monkeypatch.setattr(
        *(data, "cifar10"),
        lambda train, test: data.Images(
            *(numbered(train, 0, (32, 32, 3)), labels[:train], numbered(test, 50_000, (32, 32, 3)), labels[:test])
        ),
    )
    letters = np.random.default_rng(0).integers(0, 65, 40_000)
    monkeypatch.setattr(data, "shakespeare", lambda: "".join(chr(48 + letter) for letter in letters))

    (train, validation), test = TASKS[name].fit(), TASKS[name].test()
    a, b, c = rows(train), rows(validation), rows(test)
    assert min(len(a), len(b), len(c)) > 50
    assert not a & b
    assert not a & c
    assert not b & c


def test_windows_of_the_text_do_not_reach_into_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "shakespeare", lambda: "".join(chr(48 + i % 65) for i in range(20_000)))
    parts = tasks.text_parts()
    assert torch.equal(torch.cat(parts), tasks.tokens())
    x, y = tasks.windows(parts[1], tasks.CONTEXT)
    assert torch.equal(x[0, 1:], y[0, :-1])
    assert torch.equal(x.flatten(), parts[1][: x.numel()])


def test_the_exact_solution_solves_burgers_equation() -> None:
    t, x = (np.random.default_rng(0).uniform(low, high, 50) for low, high in ((0.05, 0.95), (-0.95, 0.95)))
    h, u = 1e-4, tasks.exact_burgers
    u_t = (u(t + h, x) - u(t - h, x)) / (2 * h)
    u_x = (u(t, x + h) - u(t, x - h)) / (2 * h)
    u_xx = (u(t, x + h) - 2 * u(t, x) + u(t, x - h)) / h**2
    np.testing.assert_allclose(u_t + u(t, x) * u_x - tasks.VISCOSITY * u_xx, 0, atol=1e-4)
    np.testing.assert_allclose(u(np.full(50, 1e-9), x), -np.sin(np.pi * x), atol=1e-6)
    np.testing.assert_allclose(u(t, np.ones(50)), 0, atol=1e-9)


def test_the_residual_is_that_of_burgers_equation() -> None:
    class Known(torch.nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            t, x = points.unbind(1)
            return t * x**2

    t, x = torch.tensor([0.5, 0.2]), torch.tensor([0.3, -0.7])
    expected = (x**2 + t * x**2 * 2 * t * x - tasks.VISCOSITY * 2 * t).square().mean()
    found = tasks.residual_loss(Known(), torch.stack([t, x], 1), torch.zeros(2))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (data.mnist, ("mnist_60k.npz", "torchvision")),
        (data.fashion, ("apt-get install dataset-fashion-mnist", "torchvision")),
        (lambda: data.cifar10(1, 1), ("cifar10_60k_jpeg.npz", "torchvision")),
        (data.shakespeare, ("karpathy/char-rnn",)),
    ],
)
def test_missing_data_are_named(
    load: Callable[[], Any], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNA_DATA", str(tmp_path))
    monkeypatch.setattr(data, "SYSTEM_FASHION", tmp_path)
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(data.MissingDataError) as caught:
        load()
    for word in ("INNA_DATA", str(tmp_path), *words):
        assert word in str(caught.value)


IMAGES = {"mnist": (28, 28), "fashion": (28, 28), "cifar10": (32, 32, 3)}
LOADERS: dict[str, Callable[[], data.Images]] = {
    "mnist": data.mnist,
    "fashion": data.fashion,
    "cifar10": lambda: data.cifar10(6, 4),
}


def arrays(name: str) -> tuple[Any, ...]:
    """Return eight images to train on and five to test on, with labels."""
    labels = np.arange(13) % 10
    return numbered(8, 0, IMAGES[name]), labels[:8], numbered(5, 8, IMAGES[name]), labels[8:]


def torchvision_stub(asked: list[Any]) -> dict[str, Any]:
    """Return modules that look like torchvision's: tensors; for CIFAR-10 an array, and labels in a list."""

    def maker(name: str, of: str) -> Any:
        def make(root: str, train: bool = True, transform: Any = None, download: bool = False) -> Any:
            asked.append((of, train, download))
            x_train, y_train, x_test, y_test = arrays(name)
            x, y = (x_train, y_train) if train else (x_test, y_test)
            grey = name != "cifar10"
            return SimpleNamespace(data=torch.tensor(x) if grey else x, targets=torch.tensor(y) if grey else y.tolist())

        return make

    datasets: Any = ModuleType("torchvision.datasets")
    for name, of in (("mnist", "MNIST"), ("fashion", "FashionMNIST"), ("cifar10", "CIFAR10")):
        setattr(datasets, of, maker(name, of))
    package: Any = ModuleType("torchvision")
    package.datasets = datasets
    return {"torchvision": package, "torchvision.datasets": datasets}


def keras_stub(asked: list[Any]) -> dict[str, Any]:
    """Return modules that look like Keras': arrays, and for CIFAR-10 labels in a column."""
    modules: dict[str, Any] = {"keras": ModuleType("keras"), "keras.datasets": ModuleType("keras.datasets")}

    def loader(name: str, of: str) -> Any:
        def load_data() -> Any:
            asked.append(of)
            x_train, y_train, x_test, y_test = arrays(name)
            if name == "cifar10":
                y_train, y_test = y_train[:, None], y_test[:, None]
            return (x_train, y_train), (x_test, y_test)

        return load_data

    for name, of in (("mnist", "mnist"), ("fashion", "fashion_mnist"), ("cifar10", "cifar10")):
        module: Any = ModuleType(f"keras.datasets.{of}")
        module.load_data = loader(name, of)
        modules[f"keras.datasets.{of}"] = module
    return modules


@pytest.mark.parametrize("name", list(LOADERS))
@pytest.mark.parametrize(
    ("package", "stub", "expected"),
    [
        ("torchvision", torchvision_stub, {"mnist": "MNIST", "fashion": "FashionMNIST", "cifar10": "CIFAR10"}),
        ("keras", keras_stub, {"mnist": "mnist", "fashion": "fashion_mnist", "cifar10": "cifar10"}),
    ],
)
def test_downloads_are_asked_for_and_understood(
    *,
    package: str,
    stub: Callable[[list[Any]], dict[str, Any]],
    expected: dict[str, str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With stand-ins for torchvision and Keras, which show what is asked of them; nothing is downloaded."""
    asked: list[Any] = []
    monkeypatch.setenv("INNA_DATA", str(tmp_path))
    monkeypatch.setattr(data, "SYSTEM_FASHION", tmp_path)
    monkeypatch.setattr(data, "find_spec", lambda wanted: wanted if wanted == package else None)
    for module, content in stub(asked).items():
        monkeypatch.setitem(sys.modules, module, content)
    images = LOADERS[name]()
    of = expected[name]
    assert asked == ([(of, True, True), (of, False, True)] if package == "torchvision" else [of])
    whole = arrays(name)
    counts = (6, 6, 4, 4) if name == "cifar10" else (8, 8, 5, 5)
    found = (images.x_train, images.y_train, images.x_test, images.y_test)
    for array, full, count in zip(found, whole, counts, strict=True):
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, full[:count])
    x, y = (tasks.colour if name == "cifar10" else tasks.grey)(images.x_train, images.y_train)
    assert x.shape == (counts[0], *((3, 32, 32) if name == "cifar10" else (1, 28, 28)))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_a_failed_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise OSError("no route to host")

    monkeypatch.setenv("INNA_DATA", str(tmp_path))
    monkeypatch.setattr(data, "find_spec", lambda name: name if name == "keras" else None)
    monkeypatch.setattr(data, "from_keras", fail)
    with pytest.raises(data.MissingDataError, match="no route to host"):
        data.mnist()


def test_the_command_says_what_is_missing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INNA_DATA", str(tmp_path))
    monkeypatch.setitem(study.TASKS, "shakespeare", replace(TASKS["shakespeare"], steps=EVALUATIONS))
    monkeypatch.setitem(study.TASKS, "digits", replace(TASKS["digits"], steps=EVALUATIONS))
    arguments = ["--task", "shakespeare,digits", "--optimizer", "sgd", "--regime", "cosine", "--budget", "1", "--out"]
    assert study.main([*arguments, str(tmp_path)]) == 1
    assert "INNA_DATA" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("*.json")] == ["digits_cosine_sgd.json"]
