"""Summary-Newton's optimizers in every host: they train, follow the core, resume bit for bit, refuse by name."""

import copy
import importlib.util
import inspect
import io
import pickle
from dataclasses import fields, replace
from typing import Any, get_type_hints

import numpy as np
import pytest

from conformance_tests.newton.networks import problem
from inna_core import INNA, INNAprop, Momentum, NewtonStatus, StepSizes, Summary, newton_step_sizes
from inna_core.newton_loop import DAMPING, StepSizeSettings, direction, next_state
from inna_core.newton_summary import partition

ALGORITHMS = {"Momentum": Momentum(), "INNA": INNA(), "INNAprop": INNAprop(0.5, 0.1)}


def skip_without(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


# --- the rule


def scalar_summary(g: float, h: float, t: float) -> Summary:
    return Summary(np.asarray([float(g)]), np.asarray([[float(h)]]), np.asarray([float(t)]))


def eta_of(g: float, h: float, t: float) -> float:
    return float(newton_step_sizes(*scalar_summary(g, h, t), damping=1.0).eta[0])


SERIES = [(1.0, 2.0, 0.5), (2.0, 1.0, -0.3), (1.5, 4.0, 0.0), (0.5, 0.3, 2.0), (-1.0, 1.0, 1.0)]


def run(rule: StepSizes, series: list[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    """Return eta as kept, and as used, after each summary."""
    state = rule.init(scalar_summary(0, 0, 0))
    kept, used = [], []
    for row in series:
        state = rule.update(scalar_summary(*row), state)
        kept.append(float(state.eta[0]))
        used.append(float(rule.step_sizes(state)[0]))
    return kept, used


def test_each_summary_on_its_own() -> None:
    rule = StepSizes(average=0.0, start=1.0, share=0.0, rise=float("inf"), clip=False)
    kept, used = run(rule, SERIES)
    want = [eta_of(*row) for row in SERIES]
    assert np.allclose(kept, want, rtol=1e-14)
    assert used == kept
    assert want[-1] < 0
    clipped = run(replace(rule, clip=True), SERIES)
    assert clipped == ([*kept[:-1], 0.0], [*kept[:-1], 0.0])


def test_smoothing_starts_from_the_first() -> None:
    kept, _ = run(StepSizes(average=0.0, smoothing=0.25, start=1.0, rise=float("inf"), clip=False), SERIES)
    want = [eta_of(*SERIES[0])]
    for row in SERIES[1:]:
        want.append(0.25 * want[-1] + 0.75 * eta_of(*row))
    assert np.allclose(kept, want, rtol=1e-14)


def test_moving_average_and_window() -> None:
    kept, _ = run(StepSizes(average=0.75, start=1.0, rise=float("inf")), SERIES)
    mean, want = np.asarray(SERIES[0]), []
    for row in SERIES:
        mean = 0.75 * mean + 0.25 * np.asarray(row)
        want.append(eta_of(*mean))
    assert np.allclose(kept, want, rtol=1e-13)

    kept, _ = run(StepSizes(average=0.0, window=3, start=1.0, rise=float("inf")), SERIES)
    want = [eta_of(*np.mean(SERIES[max(0, k - 2) : k + 1], axis=0)) for k in range(len(SERIES))]
    assert np.allclose(kept, want, rtol=1e-13)


def test_warm_up_takes_no_steps() -> None:
    kept, _ = run(StepSizes(average=0.0, window=3, warmup=2, smoothing=0.9, start=1.0, rise=float("inf")), SERIES)
    assert kept[:2] == [0.0, 0.0]
    assert np.allclose(kept[2], eta_of(*np.mean(SERIES[:3], axis=0)), rtol=1e-13)


def test_step_sizes_rise_slowly() -> None:
    series = [(1.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (1.0, 1e-6, 0.0), (1.0, 1e-6, 0.0), (1.0, 0.5, 0.0)]
    kept, _ = run(StepSizes(average=0.0, start=1.0, rise=1.5, clip=False), series)
    assert np.allclose(kept, [1.0, -1.0, 1.5, 2.25, 2.0], rtol=1e-14)


def test_step_sizes_begin_small() -> None:
    """A fraction of the first positive step size, whenever that comes, and from there as far as the rise allows."""
    series = [(-1.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.5, 0.0), (1.0, 10.0, 0.0)]
    kept, _ = run(StepSizes(average=0.0, start=0.25, rise=3.0), series)
    assert np.allclose(kept, [0.0, 0.25, 0.75, 2.0, 0.1], rtol=1e-14)


def test_a_share_goes_to_every_group_that_descends() -> None:
    """H couples two groups so that the second would step backward; hand-computed in the core's docstrings."""
    along = Summary(np.asarray([1.0, 1.0]), np.asarray([[1.0, 1.5], [1.5, 3.0]]), np.zeros(2))
    for share in (0.0, 0.25, 1.0):
        rule = StepSizes(share=share, start=1.0)
        eta = rule.step_sizes(rule.update(along, rule.init(along)))
        assert np.allclose(eta, [1 - share + share * 4 / 7, share * 4 / 21], rtol=1e-14)


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


def test_a_summary_that_is_not_finite_changes_nothing_but_the_status() -> None:
    rule = StepSizes()
    state = rule.update(scalar_summary(1, 2, 3), rule.init(scalar_summary(0, 0, 0)))
    after = rule.update(scalar_summary(1, float("nan"), 3), state)
    assert int(after.status) == NewtonStatus.FAILED
    assert all(np.array_equal(a, b) for a, b in zip(after[:-1], state[:-1], strict=True))


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        *((name, value, ValueError) for name in ("average", "smoothing") for value in (-0.1, 1.0, float("nan"))),
        *((name, -1.0, ValueError) for name in ("damping_int", "third_floor", "rise")),
        *((name, 1.5, ValueError) for name in ("start", "share")),
        ("start", 0.0, ValueError),
        ("share", -0.1, ValueError),
        ("share", "all", TypeError),
        ("rise", 0.0, ValueError),
        ("period", 0, ValueError),
        ("period", 2.5, TypeError),
        ("order", 4, ValueError),
        ("velocity_cap", 0.0, ValueError),
        ("window", 0, ValueError),
        ("window", 2, ValueError),
        ("window", 1.5, TypeError),
        ("warmup", -1, ValueError),
        ("clip", 1, TypeError),
        ("smoothing", "0.5", TypeError),
    ],
)
def test_the_rule_refuses(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Invalid {argument}: "):
        StepSizes(**{argument: value})


def test_partitions() -> None:
    names, ranks = ["a.0.weight", "a.0.bias", "a.1.weight", "b"], [2, 1, 2, 0]
    assert partition(names, ranks) == ([0, 1, 2, 3], names)
    assert partition(names, ranks, "one") == ([0, 0, 0, 0], ["all"])
    assert partition(names, ranks, "kind") == ([0, 1, 0, 1], ["weights", "biases"])
    assert partition(names, ranks, "layer") == ([0, 0, 1, 2], ["a.0", "a.1", "b"])
    assert partition(["d/kernel", "d/bias"], [2, 1], "layer") == ([0, 0], ["d"])
    assert partition(names, ranks, lambda name: name[0]) == ([0, 0, 0, 1], ["a", "b"])
    assert partition(names, ranks, [7, 8, 7, 8]) == ([0, 1, 0, 1], ["7", "8"])


# --- torch


def torch_model() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    _, _, x, y = problem("mlp")
    inputs, targets = torch.tensor(x), torch.tensor(y)
    return model, lambda: -(targets * torch.log_softmax(model(inputs), -1)).sum(-1).mean()


def torch_steps(optimizer: Any, loss: Any, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


@pytest.mark.parametrize("name", ALGORITHMS)
def test_torch_trains_without_a_learning_rate(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    records: list[Any] = []
    optimizer = inna_torch.NewtonSummary(
        model.named_parameters(), loss, ALGORITHMS[name], period=5, on_refresh=records.append
    )
    losses = torch_steps(optimizer, loss, 60)
    assert losses[-1] < losses[0] / 20
    assert [record.step for record in records] == [0, 1, 2, 3, 4, *range(5, 60, 5)]
    assert records[-1].step_sizes == optimizer.step_sizes()
    assert list(optimizer.step_sizes()) == [key for key, _ in model.named_parameters()]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_torch_steps_as_the_core_says(name: str) -> None:
    """theta - damping eta u, and the state at the capped step, from the public summary and rule."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import array_api_compat.torch as xp

    import inna_torch

    algorithm = ALGORITHMS[name]
    model, loss = torch_model()
    params = list(model.parameters())
    optimizer = inna_torch.NewtonSummary(params, loss, algorithm, damping=0.4, period=2)
    rule = StepSizes()
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


def test_the_velocity_sees_the_capped_step() -> None:
    inna = INNA(alpha=0.5, beta=0.1)
    theta, g = np.asarray([1.0]), np.asarray([2.0])
    state = inna.init(theta)._replace(velocity=np.asarray([3.0]))
    for step, seen in ((0.01, 0.01), (0.2, 0.05)):
        got = next_state(inna, g, state, theta, step, 0.5, np)
        assert got == inna.update(g, state, theta, seen)[1]
    assert np.array_equal(direction(inna, g, state, theta), 0.1 * g - state.velocity)


@pytest.mark.parametrize("at", [0, 4, 7])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_torch_resumes_bit_for_bit(name: str, at: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    def opened(model: Any, loss: Any) -> Any:
        return inna_torch.NewtonSummary(model.named_parameters(), loss, ALGORITHMS[name], period=3)

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


def test_torch_plateau_rule_is_torchs_scheduler() -> None:
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


def test_torch_refusals_change_nothing() -> None:
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


def test_torch_states_of_other_settings_are_refused_before_anything_changes() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    optimizer = inna_torch.NewtonSummary(model.parameters(), loss, INNA())
    torch_steps(optimizer, loss, 2)
    settings: list[dict[str, Any]] = [{"window": 3, "average": 0.0}, {"groups": "one"}]
    for options in settings:
        other = inna_torch.NewtonSummary(model.parameters(), loss, INNA(), **options)
        with pytest.raises(ValueError, match="Invalid state: step sizes of shapes"):
            other.load_state_dict(optimizer.state_dict())
        assert other.steps == 0
        assert other.sizes is None
        assert not other.state


def test_torch_copies_go_on_like_the_original() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    def loss_of(model: Any) -> Any:
        _, _, x, y = problem("mlp")
        return lambda: (model(torch.tensor(x)) - torch.tensor(y)).square().mean()

    model = torch_model()[0]
    optimizer = inna_torch.NewtonSummary(model.parameters(), None, INNA(), period=3)

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


# --- arguments of all hosts


def torch_constructor(*args: Any, **options: Any) -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    model, loss = torch_model()
    return inna_torch.NewtonSummary(model.parameters(), loss, *args, **options)


def optax_constructor(*args: Any, **options: Any) -> Any:
    skip_without("jax", "optax")
    import inna_optax

    return inna_optax.newton_summary(*args, **options)


CONSTRUCTORS = {"torch": torch_constructor, "optax": optax_constructor}

CONSTRUCTOR_REFUSALS = [
    ("damping", -0.1, ValueError),
    ("damping", "x", TypeError),
    ("damping_int", -1.0, ValueError),
    ("velocity_cap", 0.0, ValueError),
    ("period", 0, ValueError),
    ("order", 4, ValueError),
    ("smoothing", 1.0, ValueError),
    ("algorithm", INNA, TypeError),
    ("algorithm", "INNA", TypeError),
]


@pytest.mark.parametrize(("argument", "value", "error"), CONSTRUCTOR_REFUSALS)
@pytest.mark.parametrize("host", CONSTRUCTORS)
def test_constructors_refuse(host: str, argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Invalid {argument}: "):
        CONSTRUCTORS[host](**{argument: value})


def shown_by_torch() -> Any:
    return pytest.importorskip("inna_torch", reason="torch is not installed").NewtonSummary


def shown_by_optax() -> Any:
    return pytest.importorskip("inna_optax", reason="optax is not installed").newton_summary


@pytest.mark.parametrize("shown", [shown_by_torch, shown_by_optax])
def test_signatures_show_the_settings_and_their_defaults(shown: Any) -> None:
    """For `help` and editors; the typed keywords, for type checkers, are the same."""
    parameters = inspect.signature(shown()).parameters
    defaults = {field.name: field.default for field in fields(StepSizes)}
    assert {name: parameters[name].default for name in defaults} == defaults
    assert parameters["damping"].default == DAMPING
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = get_type_hints(StepSizes)
    assert get_type_hints(StepSizeSettings) == {name: hints[name] for name in defaults}


# --- optax


def jax_run(name: str, steps: int, resume_at: int | None = None, **options: Any) -> tuple[Any, Any, list[float]]:
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    import inna_optax
    from conformance_tests.newton.test_derivatives import jax_loss

    weights, _, x, y = problem("mlp")
    loss = jax_loss("mlp", x, y)
    optimizer = inna_optax.newton_summary(ALGORITHMS[name], period=3, **options)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state, value

    params = [jnp.asarray(w) for w in weights]
    state = optimizer.init(params)
    losses = []
    for k in range(steps):
        if k == resume_at:  # through NumPy, as a checkpoint does
            leaves, treedef = jax.tree.flatten((params, state))
            params, state = treedef.unflatten([jnp.asarray(np.array(leaf)) for leaf in leaves])
        params, state, value = step(params, state)
        losses.append(float(value))
    return params, state, losses


def test_optax_trains_without_a_learning_rate_and_as_torch_does() -> None:
    """Under jit, with the summary in the same program: the same trajectory as the torch optimizer's, to 1e-9."""
    skip_without("jax", "optax", "torch")
    import torch

    import inna_torch
    from conformance_tests.newton.test_derivatives import torch_loss

    params, state, losses = jax_run("INNA", 42, average=0.5)
    assert losses[-1] < losses[0] / 10
    assert int(state.step) == 42
    weights, _, x, y = problem("mlp")
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    loss = torch_loss("mlp", x, y)
    optimizer = inna_torch.NewtonSummary(tensors, lambda: loss(tensors), INNA(), period=3, average=0.5)
    torch_losses = torch_steps(optimizer, lambda: loss(tensors), 42)
    assert np.allclose(losses, torch_losses, rtol=1e-9)
    assert all(np.allclose(a, b.detach(), rtol=0, atol=1e-9) for a, b in zip(params, tensors, strict=True))


def test_optax_resumes_bit_for_bit() -> None:
    skip_without("jax", "optax")
    params, state, _ = jax_run("INNAprop", 9)
    again, state_again, _ = jax_run("INNAprop", 9, resume_at=4)
    import jax

    pairs = zip(jax.tree.leaves((params, state)), jax.tree.leaves((again, state_again)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_optax_damping_may_be_a_schedule() -> None:
    skip_without("jax", "optax")
    start = jax_run("Momentum", 0)[0]
    params, state, _ = jax_run("Momentum", 3, damping=lambda step: 0.0 * step)
    assert all(np.array_equal(a, b) for a, b in zip(params, start, strict=True))
    assert np.any(np.asarray(state.sizes.eta) > 0)


def test_optax_in_float32_solves_in_float64() -> None:
    """With JAX as it is by default, without x64: the step sizes are those of the rounded summary in NumPy."""
    skip_without("jax", "optax")
    import jax
    import jax.numpy as jnp

    import inna_optax

    with jax.enable_x64(False):
        params = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}

        def loss(p: Any) -> Any:
            return jnp.sum(jnp.cosh(p["w"])) + p["b"] ** 4 + p["b"] * p["w"][0]

        optimizer = inna_optax.newton_summary(INNA())
        grads = jax.grad(loss)(params)
        _, state = jax.jit(lambda g, s, p: optimizer.update(g, s, p, value_fn=loss))(
            grads, optimizer.init(params), params
        )
        found = inna_optax.summary(loss, params, jax.tree.map(lambda g: 0.1 * g, grads))
        assert state.sizes.eta.dtype == found.gradient.dtype == jnp.float32
        eta = np.asarray(state.sizes.eta)
    rule, wide = StepSizes(), Summary(*(np.asarray(x, np.float64) for x in found))
    assert np.allclose(eta, rule.step_sizes(rule.update(wide, rule.init(wide))), rtol=1e-6)


def test_optax_in_a_chain_and_with_accumulated_gradients() -> None:
    skip_without("jax", "optax")
    import jax
    import jax.numpy as jnp
    import optax

    import inna_optax

    def loss(p: Any) -> Any:
        return jnp.sum((p["w"] - 1.0) ** 2)

    plain = inna_optax.newton_summary(INNA(), period=2)
    ends = []
    for optimizer, steps in ((plain, 4), (optax.MultiSteps(optax.chain(optax.identity(), plain), 2), 8)):

        @jax.jit
        def step(params: Any, state: Any, update: Any = optimizer.update) -> Any:
            updates, state = update(jax.grad(loss)(params), state, params, value_fn=loss)
            return optax.apply_updates(params, updates), state

        params = {"w": jnp.zeros(3)}
        state = optimizer.init(params)
        for _ in range(steps):
            params, state = step(params, state)
        ends.append(np.asarray(params["w"]))
    assert np.allclose(*ends, rtol=1e-6)
    assert not np.any(ends[0] == 0)


def test_optax_needs_the_loss() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"Invalid value_fn: None \(expected"):
        optimizer.update(params, optimizer.init(params), params)


# --- Keras


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras_trains_as_torch_does_and_resumes_bit_for_bit(backend: str, workers: Any) -> None:
    skip_without("keras", "torch", backend)
    import torch

    import inna_torch
    from conformance_tests.newton.test_derivatives import torch_loss

    call = workers({"KERAS_BACKEND": backend}).call
    values, losses = call("conformance_tests.newton.keras_scenarios:trained", "INNA", 12)
    resumed, _ = call("conformance_tests.newton.keras_scenarios:trained", "INNA", 12, 5)
    assert all(np.array_equal(a, b) for a, b in zip(values, resumed, strict=True))
    weights, _, x, y = problem("mlp")
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    loss = torch_loss("mlp", x, y)
    optimizer = inna_torch.NewtonSummary(tensors, lambda: loss(tensors), INNA(), period=3, average=0.5)
    # Keras computes in float32 on two of its backends, whatever it is given, see `KERAS_PRECISION`
    rtol = 1e-9 if backend == "tensorflow" else 1e-4
    assert np.allclose(losses, torch_steps(optimizer, lambda: loss(tensors), 12), rtol=rtol)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras_callbacks_set_the_damping_and_stop(backend: str, workers: Any) -> None:
    """ReduceLROnPlateau is the plateau rule; EarlyStopping and LearningRateScheduler work on the trainer as well."""
    skip_without("keras", backend)
    found = workers({"KERAS_BACKEND": backend}).call("conformance_tests.newton.keras_scenarios:with_callbacks")
    # the first epoch is the best; each later one is a plateau, down to min_lr
    assert found["dampings"] == [0.4, 0.2, 0.15, 0.15, 0.15]
    assert sorted(found["history"]) == ["learning_rate", "loss", "val_loss"]
    assert all(len(values) == 5 for values in found["history"].values())
    assert found["history"]["loss"] == found["logged"]
    assert found["scheduled"] == 0.25 * 0.15
    assert found["names"] == ["learning_rate", "loss"]
    assert "Invalid learning_rate: -1.0" in found["refused"]


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras_trainer_sees_the_model_as_keras_does(backend: str, workers: Any) -> None:
    """Losses that the model adds, the present state of dropout, losses by name, settings, refusals."""
    skip_without("keras", backend)
    found = workers({"KERAS_BACKEND": backend}).call("conformance_tests.newton.keras_scenarios:as_keras_does")
    assert np.isclose(found["loss"], found["keras"], rtol=1e-5)
    assert found["keras"] > 10
    # the regularizer adds 2 lambda for each weight to the curvature along a direction of ones
    assert np.isclose(found["curvature"], found["own curvature"], rtol=1e-4)
    assert found["masks differ"]
    assert found["signature"] == {field.name: field.default for field in fields(StepSizes)}
    for argument in ("algorithm", "period", "y", "x", "batch_size", "epochs", "summary_size"):
        assert f"Invalid {argument}: " in found["refusals"][argument], argument
    assert all("Invalid state: " in message for message in found["states"])
    assert found["kept"]
