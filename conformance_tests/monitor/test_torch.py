"""`inna_torch.Monitor` on networks: what it leaves alone, its sharpness, its hook, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.tiers import nightly_but

torch = pytest.importorskip("torch")

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


@pytest.mark.parametrize("name", nightly_but(["INNAprop"], ["INNA", "INNAprop"]))
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


def linear() -> Any:
    return torch.nn.Linear(2, 1)


def test_samples_are_called_back_until_the_monitor_is_removed() -> None:
    model, samples = linear(), []
    optimizer = inna_torch.INNA(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    with inna_torch.Monitor(optimizer, every=2, sharpness_every=2, on_sample=samples.append) as monitor:
        for _ in range(5):
            optimizer.step()
    optimizer.step()
    assert [sample.step for sample in samples] == [2, 4]
    assert list(map(id, samples)) == list(map(id, monitor.history))


def attach(*arguments: Any, **options: Any) -> Any:
    """Make a monitor; what is wrong on purpose is not for the type checker."""
    return inna_torch.Monitor(*arguments, **options)


def foreign() -> Any:
    return torch.optim.SGD(linear().parameters())


def own() -> Any:
    return inna_torch.INNA(linear().parameters())


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "foreign": (lambda: attach(foreign()), TypeError, "Invalid optimizer: SGD"),
    "every": (lambda: attach(own(), every=0), ValueError, "Invalid every: 0"),
    "no model": (lambda: attach(own(), loss_fn=lambda: 0), ValueError, "Invalid model: None"),
    "no loss": (lambda: attach(own(), linear()), ValueError, "Invalid loss_fn: None"),
    "model": (lambda: attach(own(), [1], lambda: 0), TypeError, "Invalid model: list"),
    "loss": (lambda: attach(own(), linear(), 3), TypeError, "Invalid loss_fn: 3"),
    "on_sample": (lambda: attach(own(), on_sample=3), TypeError, "Invalid on_sample: 3"),
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
