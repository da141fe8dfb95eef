"""The training benchmark is fair, resumes, and its page says what its results say."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import json
import math
import os
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

import benchmarks.__main__ as entry
import inna_core
import inna_torch
from benchmarks.training import command, data, figures, repeat, report, scores, starts, sweep, tasks
from benchmarks.training import transfer as transfers
from benchmarks.training import trial as trials
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
from benchmarks.training.results import OtherProtocolError, Store
from benchmarks.training.schedules import REGIMES, WarmupCosine
from benchmarks.training.spaces import Log
from benchmarks.training.study import SECOND_SEED, SEEDS, TUNING_SEED, Study, complete, settings
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.trial import LOOKS, run
from conformance_tests.tiers import nightly_but

CPU = torch.device("cpu")
STORE = Store()
COMMITTED = scores.load(STORE)


def line(test: Callable[[], tasks.Split] | None = None) -> Task:
    """Return a task that trains in milliseconds: a line through noisy points."""
    x = torch.linspace(-1, 1, 40)[:, None]
    y = 2 * x[:, 0] + 0.1 * torch.sin(40 * x[:, 0])
    return Task(
        *("line", "a line", lambda: ((x[::2], y[::2]), (x[1::4], y[1::4])), test or (lambda: (x[3::4], y[3::4]))),
        model=lambda: torch.nn.Linear(1, 1),
        loss=lambda model, x, y: (model(x)[:, 0] - y).square().mean(),
        metric=lambda model, x, y: float((model(x)[:, 0] - y).abs().max()),
        metric_name="largest error",
        higher_is_better=False,
        batch=4,
        steps=LOOKS,
    )


def study(trials: int, task: Task | None = None, row: str = "inna", regime: str = "power") -> Study:
    return Study(task or line(), OPTIMIZERS[row], REGIMES[regime], trials)


def timeless(value: Any) -> Any:
    """Return stored results without what a second run cannot repeat."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key != "seconds"}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


# --- schedules and coordinates ---------------------------------------------------------------------------------------


def test_cosine_rises_and_falls() -> None:
    schedule = WarmupCosine(100, 5)
    rise = [0.2, 0.4, 0.6, 0.8, 1.0]
    fall = [math.cos(math.pi * (k - 5) / 190) ** 2 for k in range(5, 100)]
    np.testing.assert_allclose([schedule(k) for k in range(100)], rise + fall, atol=1e-12)


class Recorder(inna_torch.INNA):
    """INNA that remembers its hyperparameters."""

    seen: list[dict[str, float]]

    def step(self, closure: Any = None) -> Any:
        Recorder.seen.append({name: self.param_groups[0][name] for name in ("lr", "alpha", "beta")})
        return super().step(closure)


COSINE = [WarmupCosine(LOOKS, 1)(k) for k in range(LOOKS)]


@pytest.mark.parametrize(
    ("regime", "drawn", "factors"),
    [("power", {"q": 0.25}, [(k + 1) ** -0.25 for k in range(LOOKS)]), ("cosine", {}, COSINE)],
)
@pytest.mark.parametrize("powers", [{"lr": 1.0}, WITH_LR, AGAINST_LR, SAME_MOMENTUM])
def test_a_run_follows_its_schedule(
    regime: str, drawn: dict[str, float], factors: list[float], powers: dict[str, float]
) -> None:
    Recorder.seen = []
    peak = {"lr": 0.1, "alpha": 0.4, "beta": 0.2}
    row = Row("recorder", "recorder", {}, dict, alone(Recorder), powers=powers)
    run(line(), line().fit(), row, REGIMES[regime], {**peak, **drawn}, 0, curve=False)
    for name, value in peak.items():
        expected = [value * factor ** powers.get(name, 0.0) for factor in factors]
        np.testing.assert_allclose([seen[name] for seen in Recorder.seen], expected)


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


def test_averaged_weights_are_looked_at_and_change_no_step() -> None:
    drawn = {"gain": 0.5, "forget": 0.2, "nesterov": False}
    weights: list[torch.Tensor] = []

    class Kept(torch.optim.SGD):
        """A hook, since a step that calls SGD's may run the hooks of both: torch patches SGD's at its first use."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.register_step_post_hook(lambda *_: weights.append(self.param_groups[0]["params"][0].detach().clone()))

    base = replace(OPTIMIZERS["momentum"], make=alone(Kept))
    plain = run(line(), line().fit(), base, REGIMES["cosine"], drawn, 0, curve=False)
    own = list(weights)
    weights.clear()
    row = replace(average("momentum"), make=averaged(base.make))
    seen = run(line(), line().fit(), row, REGIMES["cosine"], {**drawn, "forget_weights": 0.1}, 0, curve=False)
    assert [look.train for look in seen.looks] == [look.train for look in plain.looks]
    assert all(torch.equal(a, b) for a, b in zip(own, weights, strict=True))
    mean = own[0]
    for weight in own[1:]:
        mean = 0.9 * mean + 0.1 * weight
    torch.testing.assert_close(seen.model.get_parameter("module.weight").detach(), mean)
    x, y = line().fit()[1]
    averages = torch.nn.functional.linear(x, mean, seen.model.get_parameter("module.bias"))
    assert seen.validation == pytest.approx(float((averages[:, 0] - y).square().mean().detach()), rel=1e-5)


def test_the_loss_on_other_samples_takes_nothing_from_the_batches() -> None:
    asked: list[torch.Tensor] = []

    def make(model: torch.nn.Module, other: Callable[[], torch.Tensor], **arguments: Any) -> Any:
        asked.extend(other() for _ in range(2))
        return torch.optim.SGD(model.parameters(), **arguments), model

    asking, plain = (
        run(line(), line().fit(), Row("sgd", "SGD", {}, dict, m), REGIMES["cosine"], {"lr": 0.1}, 0, curve=False)
        for m in (make, alone(torch.optim.SGD))
    )
    assert timeless(asking.record()) == timeless(plain.record())
    assert all(loss.requires_grad for loss in asked)
    assert float(asked[0].detach()) != float(asked[1].detach())


class Only(torch.nn.Module):
    """A model that is one parameter."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


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
    store, transfer = Store(tmp_path), transfers.BY_NAME["inna"]
    regime = REGIMES["power"]
    assert transfers.complete(line(), regime, transfer, store, CPU) is None
    complete(study(2, row="momentum"), store, CPU)
    one = transfers.complete(line(), regime, transfer, store, CPU)
    assert one is not None
    assert transfers.complete(line(), regime, transfer, store, CPU) == one
    peer = store.read("line", "power", "momentum")
    peer["winner"] = 1 - peer["winner"]
    store.write(peer, "line", "power", "momentum")
    two = transfers.complete(line(), regime, transfer, store, CPU)
    assert two is not None
    assert two["protocol"]["setting"] != one["protocol"]["setting"]
    assert [final["seed"] for final in two["final"]] == list(transfers.ALL_SEEDS)
    assert len(one["final"]) == len(transfers.ALL_SEEDS)


@pytest.mark.parametrize(
    ("name", "gain", "momentum"),
    [("inna-momentum", 0.1 / (1 - 0.9), 0.9), ("innaprop-adamw", 0.001, 0.9), ("innaprop-start", 0.003, 0.9)],
)
def test_starts_are_what_they_say(name: str, gain: float, momentum: float) -> None:
    (start,) = [start for start in starts.STARTS if start.name == name]
    expected = inertial(gain, 1 - momentum, 1 + momentum)
    if name.startswith("innaprop"):  # as strong as AdamW's default of 0.01, which takes gain * 0.01 in a step
        expected["weight_decay"] = 0.01 * gain / expected["lr"]
    assert start.setting == pytest.approx(expected, rel=2e-3)


def test_a_start_is_stored_and_shown(tmp_path: Path) -> None:
    store, start = Store(tmp_path), starts.STARTS[0]
    task = replace(TASKS["digits"], steps=LOOKS)
    one = starts.complete(task, start, store, CPU)
    assert len(one["final"]) == len(SEEDS)
    assert starts.complete(task, start, store, CPU) == one
    (shown,) = [line for line in report.starts(store, COMMITTED).splitlines() if start.title in line]
    found = scores.score(one, 0.0).validation
    assert [cell.strip() for cell in shown.split("|")[2:-1]] == [report.ranged(found), *[""] * 5]


def test_every_corner_of_every_space_makes_an_optimizer() -> None:
    for row in TUNED.values():
        for end in (0, -1):
            drawn = {k: (s.low, s.high)[end] if isinstance(s, Log) else s.values[end] for k, s in row.space.items()}
            optimizer, _ = row.make(torch.nn.Linear(2, 1), lambda: torch.zeros(()), **row.arguments(drawn))
            assert set(row.powers) <= set(optimizer.param_groups[0])


# --- data ------------------------------------------------------------------------------------------------------------


def numbered(count: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return images of which each is told from the others by its first three bytes."""
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


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setitem(command.TASKS, "shakespeare", replace(TASKS["shakespeare"], steps=LOOKS))
    monkeypatch.setitem(command.TASKS, "digits", replace(TASKS["digits"], steps=LOOKS))
    arguments = ["--task", "shakespeare,digits", "--optimizer", "sgd", "--regime", "cosine", "--budget", "1", "--out"]
    assert command.main([*arguments, str(tmp_path)]) == 1
    assert "INNA_DATA" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("*.json")] == ["digits_cosine_sgd.json"]


# --- fairness --------------------------------------------------------------------------------------------------------


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


def test_the_test_split_is_looked_at_for_the_chosen_setting_only(tmp_path: Path) -> None:
    store, seen = Store(tmp_path), []
    plain = line()

    def test() -> tasks.Split:
        stored = store.read("line", "power", "inna")
        seen.append((len(stored["tuning"]), len(stored["second"])))
        return plain.test()

    result = complete(study(5, replace(plain, test=test)), store, CPU)
    assert seen == [(5, 3)] * 3
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
    drawn = settings(study(1).space, 1)[0]
    runs = [run(line(), line().fit(), OPTIMIZERS["inna"], REGIMES["power"], drawn, 3, curve=True) for _ in range(2)]
    torch.rand(3)  # the global generator takes no part
    assert timeless(runs[0].record()) == timeless(runs[1].record())


def test_a_run_that_diverges_ends_early_and_loses(tmp_path: Path) -> None:
    told: list[int] = []
    row = replace(OPTIMIZERS["sgd"], space={"lr": Log(1e20, 1e21)})
    s = replace(study(2, regime="cosine"), row=row)
    result = complete(s, Store(tmp_path), CPU, told.append)
    assert sum(told) == s.steps
    assert [trial["validation"] for trial in result["tuning"]] == [None, None]
    assert all(not final["finished"] and final["test"] is None for final in result["final"])
    assert scores.score(result, 1.0).reached == 0
    assert "NaN" not in (tmp_path / "line_cosine_sgd.json").read_text()


# --- devices ---------------------------------------------------------------------------------------------------------


def small(name: str) -> Task:
    """Return a task with a few samples of the right shape in place of its data, and one step to a look."""
    task = replace(TASKS[name], steps=LOOKS, batch=4)
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

    for module in (trials, tasks):
        monkeypatch.setattr(module, "float", number, raising=False)
    setting = settings(row.space, 1)[0]
    train, validation = task.fit()
    fit = trials.moved(train, meta), trials.moved(validation, meta)
    outcome = run(task, fit, row, REGIMES["cosine"], setting, 0, curve=True)
    trials.measure(task, outcome.model, trials.moved(task.test(), meta))
    assert {p.device.type for p in outcome.model.parameters()} == {"meta"}
    assert len(outcome.looks) == LOOKS
    assert len(read) >= 2 * LOOKS + 1
    assert set(read) == {"meta"}


def test_an_absent_device_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for main in (command.main, sweep.main, transfers.main, starts.main, repeat.main):
        with pytest.raises(SystemExit):
            main(["--device", "cuda"])
        assert "torch finds no such device here" in capsys.readouterr().err


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [0, 1, 4, 5, 7, 9])
def test_an_interrupted_study_ends_as_one_that_was_not(runs: int, tmp_path: Path) -> None:
    """Four trials, three of them again, three final runs: stop in each part."""
    whole = complete(study(4), Store(tmp_path / "whole"), CPU)
    left = [LOOKS * runs + 3]

    def interrupt(steps: int) -> None:
        left[0] -= steps
        if left[0] < 0:
            raise KeyboardInterrupt

    store = Store(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        complete(study(4), store, CPU, interrupt)
    told: list[int] = []
    complete(study(4), store, CPU, told.append)
    names = study(4).names
    assert timeless(store.read(*names)) == timeless(Store(tmp_path / "whole").read(*names))
    assert timeless(store.read(*names)["tuning"]) == timeless(json.loads(json.dumps(whole["tuning"])))
    assert sum(told) == study(4).steps


def test_a_larger_budget_goes_on_from_a_smaller(tmp_path: Path) -> None:
    few, many = Store(tmp_path / "few"), Store(tmp_path / "many")
    complete(study(3), few, CPU)
    complete(study(7), few, CPU)
    complete(study(7), many, CPU)
    names = study(7).names
    assert timeless(few.read(*names)) == timeless(many.read(*names))
    before = few.path(*names).read_bytes()
    complete(study(2), few, CPU)
    assert timeless(json.loads(before)) == timeless(few.read(*names))


def test_results_of_another_protocol_are_not_gone_on_with(tmp_path: Path) -> None:
    complete(study(1), Store(tmp_path), CPU)
    with pytest.raises(OtherProtocolError, match=r"different: steps.*Delete it"):
        complete(study(1, replace(line(), steps=2 * LOOKS)), Store(tmp_path), CPU)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write({"old": 1.0}, "file")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write({"new": 2.0}, "file")
    assert store.read("file") == {"old": 1.0}


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    grid = sweep.Sweep("grid", "power", {"lr": (0.1, 1e30), "q": (0.0, 0.5)}, {"alpha": 0.5, "beta": 0.1})
    left = [LOOKS + 3]

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


# --- scores and the report -------------------------------------------------------------------------------------------


def final(*validation: float | None, test: float = 90.0) -> dict[str, Any]:
    looks = [{"step": 100 * i, "seconds": 1.0 * i, "train": 0.5, "validation": v} for i, v in enumerate(validation, 1)]
    return {"finished": validation[-1] is not None, "test": test, "looks": looks}


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
    assert scores.target(results, "digits", "cosine") == 0.5  # 400 steps: the looks at 100, 200 and 300 count


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
    losses = [final["looks"][-1]["validation"] for final in stored["final"]]
    for final in repeat.again(stored, CPU):
        assert 0.95 * min(losses) <= final["looks"][-1]["validation"] <= 1.05 * max(losses)


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
            table(results, regime).splitlines() for results in (COMMITTED, without) for table in (report.details,)
        ]
        assert [line for line in tables[0] if line not in tables[1]]
        assert all(line in tables[0] for line in tables[1])
        place = 3 + list(OPTIMIZERS).index("inna")
        for table in (report.overview, report.short, report.chosen_settings, report.robustness, report.pairs):
            before, after = (table(results, regime).splitlines() for results in (COMMITTED, without))
            assert len(before) == len(after)
        (row,) = [line for line in report.overview(without, regime).splitlines() if TASKS["digits"].title in line]
        assert row.split("|")[1:-1][place].strip() == ""
        figures.curves(without, regime)
        figures.plt.close("all")


def test_the_command_runs_what_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    planned = {study.names for study in command.parse([]).studies}
    declared = {(task, regime, row.name) for row in TUNED.values() for task in row.tasks for regime in row.regimes}
    assert planned == declared
    assert {study.names for study in command.parse(["--task", "cifar10", "--optimizer", "newton,sgd"]).studies} == {
        ("cifar10", regime, "sgd") for regime in REGIMES
    }
    with pytest.raises(SystemExit):
        command.parse(["--task", "cifar10", "--optimizer", "newton"])
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
    assert TASKS["digits"].title in report.decay(store)
    store.write({**swept, "runs": swept["runs"][:-1]}, "sweep", "digits", "decay")
    assert TASKS["digits"].title not in report.decay(store)  # a sweep that is not finished is left out


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
