"""Summary-Newton's torch optimizer: it trains, follows the core, resumes bit for bit, refuses before it changes."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest

from conformance_tests.newton.networks import problem
from conformance_tests.newton.torch_networks import ALGORITHMS, torch_model, torch_steps
from inna_core import INNA, Momentum, StepSizes
from inna_core.newton import direction, next_state


@pytest.mark.parametrize("name", ALGORITHMS)
def test_trains_without_a_learning_rate(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    records: list[Any] = []
    optimizer = inna_torch.NewtonSummary(
        model.named_parameters(), loss, ALGORITHMS[name], rule=StepSizes(period=5), on_refresh=records.append
    )
    losses = torch_steps(optimizer, loss, 60)
    assert losses[-1] < losses[0] / 20
    assert [record.step for record in records] == [0, 1, 2, 3, 4, *range(5, 60, 5)]
    assert records[-1].step_sizes == optimizer.step_sizes()
    assert list(optimizer.step_sizes()) == [key for key, _ in model.named_parameters()]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_steps_are_those_of_the_core(name: str) -> None:
    """theta - damping eta u, and the state at the capped step, from the public summary and rule."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import array_api_compat.torch as xp

    import inna_torch

    algorithm = ALGORITHMS[name]
    model, loss = torch_model()
    params = list(model.parameters())
    rule = StepSizes(period=2)
    optimizer = inna_torch.NewtonSummary(params, loss, algorithm, damping=0.4, rule=rule)
    sizes: Any = None
    states = [algorithm.init(p.detach(), xp) for p in params]
    for k in range(6):
        optimizer.zero_grad()
        loss().backward()
        thetas, grads = [p.detach().clone() for p in params], [p.grad.clone() for p in params]
        moves = [direction(algorithm, g, m, p, xp) for g, m, p in zip(grads, states, thetas, strict=True)]
        if k < 2 or k % 2 == 0:
            found = inna_torch.summary(loss, params, moves)
            sizes = rule.update(found, rule.init(found) if sizes is None else sizes)
        optimizer.step()
        eta = rule.step_sizes(sizes).tolist()
        for p, theta, u, e in zip(params, thetas, moves, eta, strict=True):
            assert torch.equal(p.detach(), theta - 0.4 * e * u)
        states = [
            next_state(algorithm, g, m, p, 0.4 * e, 0.5, xp)
            for g, m, p, e in zip(grads, states, thetas, eta, strict=True)
        ]
        for p, m in zip(params, states, strict=True):
            for field, value in m._asdict().items():
                assert torch.equal(optimizer.state[p][field], value)


def test_no_parameter_takes_a_longer_step_than_trust_allows() -> None:
    """Without a limit of how step sizes rise, most are cut: to the length that trust allows, in the same direction."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    params, limited = list(model.parameters()), []
    rule = StepSizes(start=1.0, rise=float("inf"), trust=0.01)
    optimizer = inna_torch.NewtonSummary(params, loss, Momentum(0.0), rule=rule)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        before = [p.detach().clone() for p in params]
        optimizer.step()
        for p, old in zip(params, before, strict=True):
            moved, allowed = (p.detach() - old).norm(), 0.01 * max(float(old.norm()), 1e-3 * old.numel() ** 0.5)
            assert float(moved) <= allowed * (1 + 1e-9)
            limited.append(float(moved) >= allowed * (1 - 1e-9))
            assert torch.allclose(moved * p.grad / p.grad.norm(), old - p.detach(), rtol=1e-6, atol=1e-12)
    assert any(limited)


def test_every_group_of_a_network_trains() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    start = [p.detach().clone() for p in model.parameters()]
    records: list[Any] = []
    optimizer = inna_torch.NewtonSummary(model.parameters(), loss, INNA(), on_refresh=records.append)
    torch_steps(optimizer, loss, 40)
    assert not any(torch.equal(a, p) for a, p in zip(start, model.parameters(), strict=True))
    moving = np.mean([[size > 0 for size in record.step_sizes.values()] for record in records], axis=0)
    assert np.all(moving > 0.5)


@pytest.mark.parametrize("at", [0, 4, 7])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_resumes_bit_for_bit(name: str, at: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    def opened(model: Any, loss: Any) -> Any:
        return inna_torch.NewtonSummary(model.named_parameters(), loss, ALGORITHMS[name], rule=StepSizes(period=3))

    model, loss = torch_model()
    optimizer = opened(model, loss)
    torch_steps(optimizer, loss, at)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    torch_steps(optimizer, loss, 8)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, other_loss = torch_model()
    other.load_state_dict(saved["model"])
    resumed = opened(other, other_loss)
    resumed.load_state_dict(saved["optimizer"])
    torch_steps(resumed, other_loss, 8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert resumed.step_sizes() == optimizer.step_sizes()


def test_torchs_plateau_scheduler_halves_the_step_sizes() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    optimizer = inna_torch.NewtonSummary(model.named_parameters(), loss, INNA(), damping=0.4)
    torch_steps(optimizer, loss, 3)
    before = optimizer.step_sizes()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scheduler.step(1.0)
    assert optimizer.step_sizes() == before
    scheduler.step(1.0)
    assert optimizer.step_sizes() == {label: size / 2 for label, size in before.items()}


def test_refused_steps_change_nothing() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    optimizer = inna_torch.NewtonSummary(model.parameters(), algorithm=INNA())
    loss().backward()
    before, state = [p.detach().clone() for p in model.parameters()], copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"Invalid summary_loss: None \(expected a closure"):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"Invalid lr: -1\.0"):
        optimizer.step(summary_loss=loss)
    optimizer.param_groups[0]["lr"] = 0.3
    assert all(torch.equal(a, p) for a, p in zip(before, model.parameters(), strict=True))
    assert optimizer.state_dict() == state
    optimizer.step(summary_loss=loss)
    assert not all(torch.equal(a, p) for a, p in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="Invalid param_group"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    for broken in ({}, {"summary": {"steps": 1, "eta": 2}}):
        with pytest.raises(ValueError, match="Invalid state"):
            optimizer.load_state_dict({**{k: v for k, v in optimizer.state_dict().items() if k != "summary"}, **broken})


def test_states_of_other_settings_are_refused_before_anything_changes() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    optimizer = inna_torch.NewtonSummary(model.parameters(), loss, INNA())
    torch_steps(optimizer, loss, 2)
    others: list[dict[str, Any]] = [{"rule": StepSizes(window=3, average=0.0)}, {"groups": "one"}]
    for options in others:
        other = inna_torch.NewtonSummary(model.parameters(), loss, INNA(), **options)
        with pytest.raises(ValueError, match="Invalid state: step sizes of shapes"):
            other.load_state_dict(optimizer.state_dict())
        assert other.steps == 0
        assert other.sizes is None
        assert not other.state


def test_copies_continue_like_the_original() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    def loss_of(model: Any) -> Any:
        _, _, x, y = problem("mlp")
        return lambda: (model(torch.tensor(x)) - torch.tensor(y)).square().mean()

    model = torch_model()[0]
    optimizer = inna_torch.NewtonSummary(model.parameters(), None, INNA(), rule=StepSizes(period=3))

    def go_on(model: Any, optimizer: Any) -> list[Any]:
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model)().backward()
            optimizer.step(summary_loss=loss_of(model))
        return [p.detach() for p in model.parameters()]

    go_on(model, optimizer)
    copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    want = go_on(model, optimizer)
    for pair in copies:
        assert all(torch.equal(a, b) for a, b in zip(want, go_on(*pair), strict=True))


@pytest.mark.parametrize("entry", ["slow", "n_averaged"])
def test_state_entries_of_others_are_left_alone(entry: str) -> None:
    """By steps, and by loading a state; Lookahead and others keep theirs in the optimizer's state."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    def trained(foreign: Any) -> tuple[Any, Any]:
        model, loss = torch_model()
        optimizer = inna_torch.NewtonSummary(model.parameters(), loss, INNA())
        for p in model.parameters():
            optimizer.state[p].update(foreign)
        torch_steps(optimizer, loss, 2)
        optimizer.load_state_dict(optimizer.state_dict())
        torch_steps(optimizer, loss, 2)
        return model, optimizer

    value = {"slow": torch.ones(3, dtype=torch.float16), "n_averaged": 7}[entry]
    (model, optimizer), (want, _) = trained({entry: value}), trained({})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), want.parameters(), strict=True))
    assert all(torch.equal(torch.as_tensor(state[entry]), torch.as_tensor(value)) for state in optimizer.state.values())


def test_a_tensor_given_twice_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    p = torch.nn.Parameter(torch.ones(2))
    with (
        pytest.warns(UserWarning, match="duplicate parameters"),
        pytest.raises(ValueError, match="Invalid params: the same tensor is given twice"),
    ):
        inna_torch.NewtonSummary([p, p])
