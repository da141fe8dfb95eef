"""`inna_torch.Monitor`: what it leaves alone, networks, groups, complex and frozen parameters, refusals."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.monitor.reference import HESSIAN, is_stable

torch = pytest.importorskip("torch")

import inna_core  # noqa: E402
import inna_torch  # noqa: E402
from inna_core.monitor import Metrics  # noqa: E402

OPTIONS: dict[str, dict[str, Any]] = {
    "INNA": {},
    "INNA-single": {"foreach": False},
    "INNA-foreach": {"foreach": True},
    "INNAprop": {"betas": (0.9, 0.99)},
    "INNAprop-single": {"foreach": False},
    "INNAprop-compiled": {"compiled": True},
}
WAYS = [pytest.param(name, marks=[pytest.mark.nightly] if "compiled" in name else []) for name in OPTIONS]


class Network(torch.nn.Module):
    """With running statistics, dropout, attention, and a parameter without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(3, 4, 3, padding=1)
        self.batch_norm, self.layer_norm = torch.nn.BatchNorm1d(4), torch.nn.LayerNorm(4)
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        self.dropout, self.head = torch.nn.Dropout(0.3), torch.nn.Linear(4, 2)
        self.unused = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        self.calls = self.calls + 1  # another tensor
        x = self.layer_norm(torch.tanh(self.batch_norm(self.convolution(x))).transpose(1, 2))
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.dropout(x).mean(1))


def trained(name: str, monitored: bool) -> tuple[Any, Any, list[Metrics]]:
    torch.manual_seed(0)
    model = Network()
    optimizer = getattr(inna_torch, name.split("-")[0])(model.parameters(), lr=0.01, **OPTIONS[name])
    x, y = torch.randn(8, 3, 5), torch.randn(8, 2)

    def loss() -> Any:
        return torch.nn.functional.mse_loss(model(x), y)

    monitor = inna_torch.Monitor(optimizer, model, loss, every=1, sharpness_every=2) if monitored else None
    for _ in range(6):
        optimizer.zero_grad()
        loss().backward()
        with torch.no_grad():
            optimizer.step()
    found = [
        model.state_dict(),
        optimizer.state_dict(),
        [p.grad for p in model.parameters()],
        torch.get_rng_state(),
        [module.training for module in model.modules()],
    ]
    return found, model, monitor.history if monitor is not None else []


def assert_same(found: Any, wanted: Any) -> None:
    leaves, structure = torch.utils._pytree.tree_flatten(found)
    others, other_structure = torch.utils._pytree.tree_flatten(wanted)
    assert structure == other_structure
    for x, y in zip(leaves, others, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("name", WAYS)
def test_a_monitor_changes_no_bit(name: str) -> None:
    found, _, history = trained(name, True)
    wanted, _, _ = trained(name, False)
    assert_same(found, wanted)
    assert [np.isfinite(sample.sharpness) for sample in history] == [False, True] * 3
    assert all(np.isfinite(sample.energy) for sample in history)


@pytest.mark.parametrize("name", ["INNA", "INNAprop"])
def test_the_sharpness_of_a_network_is_that_of_differences_of_gradients(name: str) -> None:
    """Batch statistics, normalization and attention included; without dropout."""
    torch.manual_seed(0)
    model = Network().double()
    model.dropout.p = 0.0
    params = [p for p in model.parameters() if p is not model.unused]
    optimizer = getattr(inna_torch, name)(params, lr=1e-3)
    x, y = torch.randn(8, 3, 5).double(), torch.randn(8, 2).double()

    def loss() -> Any:
        return torch.nn.functional.mse_loss(model(x), y)

    n = sum(p.numel() for p in params)
    with inna_torch.Monitor(optimizer, model, loss, every=3, sharpness_every=3, iterations=n) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    at = torch.nn.utils.parameters_to_vector(params).detach()

    def gradient(theta: Any) -> Any:
        torch.nn.utils.vector_to_parameters(theta, params)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(), params)])

    rows = [(gradient(at + 1e-5 * e) - gradient(at - 1e-5 * e)) / 2e-5 for e in torch.eye(n).double()]
    hessian = torch.stack(rows)
    if name == "INNAprop":
        s = torch.cat([optimizer.state[p]["second_moment"].flatten() for p in params])
        root = (s / (1 - 0.999**3)).sqrt().add(1e-8).sqrt()
        hessian = hessian / (root[:, None] * root)
    expected = torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    assert monitor.history[0].sharpness == pytest.approx(float(expected), rel=1e-5)


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


def test_samples_are_called_back_until_the_monitor_is_removed() -> None:
    model, loss = quadratic(C)
    optimizer, seen = inna_torch.INNA(model.parameters()), []
    loss().backward()
    with inna_torch.Monitor(optimizer, every=2, sharpness_every=2, on_sample=seen.append) as monitor:
        for _ in range(5):
            optimizer.step()
    optimizer.step()
    assert [sample.step for sample in seen] == [2, 4]
    assert seen == monitor.history or all(np.isnan(sample.loss) for sample in seen)
    assert copy.deepcopy(optimizer.state_dict()).keys() == {"state", "param_groups"}


FORMS: dict[str, tuple[str, dict[str, float]]] = {
    "INNA": ("INNA", {"alpha": 0.5, "beta": 0.1}),
    "INNA-momentum": ("INNA", {"momentum": 0.9}),
    "INNA-lead-below-1": ("INNA", {"momentum": 0.5, "lead": 0.3}),
    "INNAprop": ("INNAprop", {"alpha": 2.0, "beta": 0.1}),
    "INNAprop-momentum": ("INNAprop", {"momentum": 0.9, "lead": 3.0}),
}


@pytest.mark.parametrize("name", FORMS)
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


def linear() -> Any:
    return torch.nn.Linear(2, 1)


def attach(*arguments: Any, **options: Any) -> Any:
    """Make a monitor; what is wrong on purpose is not for the type checker."""
    return inna_torch.Monitor(*arguments, **options)


def foreign() -> Any:
    return torch.optim.SGD(linear().parameters())


def own() -> Any:
    return inna_torch.INNA(linear().parameters())


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "foreign": (
        lambda: attach(torch.optim.SGD(linear().parameters())),
        TypeError,
        "Invalid optimizer: SGD",
    ),
    "every": (lambda: attach(own(), every=0), ValueError, "Invalid every: 0"),
    "no model": (lambda: attach(own(), loss_fn=lambda: 0), ValueError, "Invalid model: None"),
    "no loss": (lambda: attach(own(), linear()), ValueError, "Invalid loss_fn: None"),
    "model": (lambda: attach(own(), [1], lambda: 0), TypeError, "Invalid model: list"),
    "loss": (lambda: attach(own(), linear(), 3), TypeError, "Invalid loss_fn: 3"),
    "scalar": (
        lambda: attach(own(), linear(), lambda: torch.ones(2)).sample(),
        ValueError,
        r"Invalid loss_fn: it returned tensor\(\[1., 1.\]\) \(expected a real tensor with one element\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_a_refused_monitor_hooks_nothing() -> None:
    optimizer = own()
    with pytest.raises(ValueError, match="Invalid every"):
        inna_torch.Monitor(optimizer, every=-1)
    assert not optimizer._optimizer_step_post_hooks


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
    assert inna_core.INNA is optimizer.algorithm
