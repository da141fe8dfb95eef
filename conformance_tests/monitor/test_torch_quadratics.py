"""`inna_torch.Monitor` on quadratics, whose numbers are known: groups, complex and frozen parameters, divergence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.monitor.reference import HESSIAN, is_stable
from conformance_tests.tiers import nightly_but

torch = pytest.importorskip("torch")

import inna_torch  # noqa: E402
from inna_core.monitor import Metrics  # noqa: E402


def quadratic(*parts: Any) -> tuple[Any, Callable[[], Any]]:
    """Return parameters of ones and the loss sum of c_i |theta_i|^2 / 2."""
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones_like(c)) for c in parts])
    return model, lambda: sum((c.real * p.abs().square()).sum() for c, p in zip(parts, model, strict=True)) / 2


C, D = torch.tensor([1.0, 5.0]).double(), torch.tensor([2.0, 9.0]).double()


def sample_after(steps: int, optimizer: Any, model: Any, loss: Any) -> Metrics:
    with inna_torch.Monitor(optimizer, model, loss, every=steps, sharpness_every=steps) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return monitor.history[0]


def test_complex_parameters_count_as_two_real_ones() -> None:
    model, loss = quadratic(C.to(torch.complex128))
    optimizer = inna_torch.INNA(model.parameters(), lr=0.01, momentum=0.9)
    sample = sample_after(3, optimizer, model, loss)
    v = optimizer.state[model[0]]["velocity"]
    assert sample.velocity_norm == pytest.approx(float(v.abs().square().sum().sqrt()), rel=1e-12)
    assert sample.sharpness == pytest.approx(5.0, rel=1e-12)


def test_frozen_parameters_are_left_out() -> None:
    model, loss = quadratic(C, D)
    optimizer = inna_torch.INNA(model.parameters(), lr=0.01, momentum=0.9)
    assert sample_after(2, optimizer, model, loss).sharpness == pytest.approx(9.0, rel=1e-12)
    model[1].requires_grad_(False)
    sample = sample_after(1, optimizer, model, loss)
    assert sample.sharpness == pytest.approx(5.0, rel=1e-12)
    v = optimizer.state[model[0]]["velocity"]
    assert sample.velocity_norm == pytest.approx(float(v.norm()), rel=1e-12)


@pytest.mark.parametrize("other", [{"lr": 0.02}, {"momentum": 0.8}, {"lead": 1.0}, {"maximize": True}])
def test_groups_that_differ_have_no_energy_and_no_limit(other: dict[str, Any]) -> None:
    model, loss = quadratic(C, D)
    groups = [{"params": [model[0]]}, {"params": [model[1]], **other}]
    sample = sample_after(2, inna_torch.INNA(groups, lr=0.01, momentum=0.9), model, loss)
    assert np.isfinite([sample.loss, sample.velocity_norm]).all()
    assert np.isnan([sample.lr, sample.energy, sample.sharpness, sample.stable_sharpness]).all()


def test_groups_that_differ_in_decay_are_one_run() -> None:
    model, loss = quadratic(C, D)
    groups = [{"params": [model[0]]}, {"params": [model[1]], "weight_decay": 0.1}]
    assert sample_after(2, inna_torch.INNA(groups, lr=0.01), model, loss).sharpness == pytest.approx(9.0, rel=1e-12)


def test_ascent_of_a_loss_is_descent_of_its_negative() -> None:
    model, loss = quadratic(C)
    found = sample_after(3, inna_torch.INNA(model.parameters(), lr=0.01), model, loss)
    model, _ = quadratic(C)
    negative = lambda: -(C * model[0].square()).sum() / 2  # noqa: E731
    ascent = sample_after(3, inna_torch.INNA(model.parameters(), lr=0.01, maximize=True), model, negative)
    assert ascent == found._replace(loss=-found.loss)


def test_without_a_loss_the_velocity_and_the_limit_are_measured() -> None:
    model, loss = quadratic(C)
    optimizer = inna_torch.INNA(model.parameters(), lr=0.01, momentum=0.9, lead=1.0)
    monitor = inna_torch.Monitor(optimizer, every=1)
    loss().backward()
    optimizer.step()
    (sample,) = monitor.history
    assert sample.velocity_norm > 0
    assert sample.stable_sharpness == pytest.approx(2 * 1.9 / 0.01, rel=1e-12)  # the heavy ball's 2 (1 + m) / lr
    assert np.isnan([sample.loss, sample.energy, sample.sharpness]).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_recorded(value: float) -> None:
    model, loss = quadratic(C)
    optimizer = inna_torch.INNAprop(model.parameters(), lr=0.01)
    loss().backward()
    monitor = inna_torch.Monitor(optimizer, model, lambda: loss() * value, every=1, sharpness_every=1)
    optimizer.step()
    assert not np.isfinite(monitor.history[0].loss)
    assert np.isnan(monitor.history[0].sharpness)


def test_zero_gradients_and_a_linear_loss_have_no_sharpness() -> None:
    model, _ = quadratic(C)
    optimizer = inna_torch.INNA(model.parameters(), lr=0.01)
    model[0].grad = torch.zeros_like(model[0])
    monitor = inna_torch.Monitor(optimizer, model, lambda: model[0].sum(), every=1, sharpness_every=1)
    optimizer.step()
    assert monitor.history[0].velocity_norm == monitor.history[0].sharpness == 0.0
    assert monitor.history[0].stability_ratio == 0.0


def test_nothing_that_moves_is_no_velocity() -> None:
    model, loss = quadratic(C)
    monitor = inna_torch.Monitor(inna_torch.INNA(model.parameters()), model, loss, every=1, sharpness_every=1)
    monitor.optimizer.step()  # no gradients yet
    assert monitor.history[0].velocity_norm == 0.0
    assert np.isnan(monitor.history[0].sharpness)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_step_under_torch_compile_is_sampled() -> None:
    model, loss = quadratic(C.float())
    optimizer = inna_torch.INNA(model.parameters(), lr=0.01, momentum=0.9)
    monitor = inna_torch.Monitor(optimizer, model, loss, every=2, sharpness_every=2)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for _ in range(4):
        optimizer.zero_grad()
        loss().backward()
        step()
    assert [sample.step for sample in monitor.history] == [2, 4]
    assert monitor.history[-1].sharpness == pytest.approx(5.0, rel=1e-5)


FORMS: dict[str, tuple[str, dict[str, float]]] = {
    "INNA": ("INNA", {"alpha": 0.5, "beta": 0.1}),
    "INNA-momentum": ("INNA", {"momentum": 0.9}),
    "INNA-lead-below-1": ("INNA", {"momentum": 0.5, "lead": 0.3}),
    "INNAprop": ("INNAprop", {"alpha": 2.0, "beta": 0.1}),
    "INNAprop-momentum": ("INNAprop", {"momentum": 0.9, "lead": 3.0}),
}


@pytest.mark.parametrize("name", nightly_but(["INNA", "INNAprop-momentum"], FORMS))
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_run_diverges_where_the_ratio_is_above_1(name: str, factor: float) -> None:
    """INNAprop's second moment is held: sigma is almost 1, and the number of steps large."""
    kind, hyper = FORMS[name]
    A = torch.tensor(HESSIAN)
    scales = torch.tensor([[1.0], [0.1], [2.0], [0.5]]).double() if kind == "INNAprop" else torch.ones(4, 1).double()
    eigenvalues, vectors = torch.linalg.eig(A / scales)
    h, worst = eigenvalues.real.max().item(), vectors.real[:, [int(eigenvalues.real.argmax())]]

    def dampings(lr: float) -> tuple[float, float, float]:
        if "momentum" not in hyper:
            return lr, hyper["alpha"], hyper["beta"]
        m = hyper["momentum"]
        gamma = (lr * (1 - m if kind == "INNAprop" else 1)) ** 0.5
        return gamma, (1 - m) / gamma, hyper.get("lead", 1 + m) * gamma

    low, high = 1e-6, 1e3
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if is_stable(h, *dampings(middle)) else (low, middle)

    model = torch.nn.ParameterList([torch.nn.Parameter(worst.contiguous())])
    more = {"sigma": 1 - 1e-14, "eps": 1e-14} if kind == "INNAprop" else {}
    optimizer = getattr(inna_torch, kind)(model.parameters(), lr=factor * low, weight_decay=0.0, **hyper, **more)
    if kind == "INNAprop":
        state = {"velocity": torch.zeros(4, 1), "second_moment": scales**2, "step": torch.tensor(1e17)}
        entries = {name: x.double() for name, x in state.items()}
        optimizer.load_state_dict({"state": {0: entries}, "param_groups": optimizer.state_dict()["param_groups"]})

    def loss() -> Any:
        return (model[0].T @ A @ model[0]).sum() / 2

    values = [loss().item()] * 2
    size = start = sum(values)
    with inna_torch.Monitor(optimizer, model, loss, every=10, sharpness_every=50) as monitor:
        for _ in range(4000):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            values = [values[1], value.item()]
            size = sum(values)  # one of them may be near zero where the run oscillates
            if not 1e-4 < size / start < 1e4:
                break
            optimizer.step()
    assert size > 1e4 * start if factor > 1 else size < 1e-4 * start
    ratios = [sample.stability_ratio for sample in monitor.history if np.isfinite(sample.sharpness)]
    assert ratios
    assert all((ratio > 1) == (factor > 1) for ratio in ratios)
