"""Summary-Newton's gradient transformation: as torch's, resumed, scheduled, in float32 and composed."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance_tests.newton.networks import jax_loss, problem, torch_loss
from conformance_tests.newton.torch_networks import ALGORITHMS, torch_steps
from conformance_tests.packages import skip_without
from inna_core import INNA, StepSizes, Summary

# long, so on the worker that begins with the matrix' rows of optax
pytestmark = pytest.mark.xdist_group("optax")


def from_the_third_step(step: Any) -> Any:
    return 1.0 * (step >= 2)


@cache
def jax_training(name: str, average: float, trust: float, **options: Any) -> tuple[Any, Any]:
    """Return an optimizer and its jitted step, which takes long to compile."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    import inna_optax

    _, _, x, y = problem("mlp")
    loss = jax_loss("mlp", x, y)
    optimizer = inna_optax.newton_summary(
        ALGORITHMS[name], rule=StepSizes(period=3, average=average, trust=trust), **options
    )

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state, value

    return optimizer, step


def jax_run(
    name: str,
    steps: int,
    resume_at: int | None = None,
    average: float = 0.95,
    trust: float = float("inf"),
    **options: Any,
) -> tuple[Any, Any, list[float]]:
    import jax
    import jax.numpy as jnp

    optimizer, step = jax_training(name, average, trust, **options)
    params = [jnp.asarray(w) for w in problem("mlp")[0]]
    state = optimizer.init(params)
    losses = []
    for k in range(steps):
        if k == resume_at:  # through NumPy, as a checkpoint does
            leaves, treedef = jax.tree.flatten((params, state))
            params, state = treedef.unflatten([jnp.asarray(np.array(leaf)) for leaf in leaves])
        params, state, value = step(params, state)
        losses.append(float(value))
    return params, state, losses


def test_trains_without_a_learning_rate_and_as_torch_does() -> None:
    """Under jit, with the summary in the same program: the same trajectory as the torch optimizer's, to 1e-9."""
    skip_without("jax", "optax", "torch")
    import torch

    import inna_torch

    params, state, losses = jax_run("INNA", 42, average=0.5, trust=0.1)
    assert losses[-1] < losses[0] / 10
    assert int(state.step) == 42
    weights, _, x, y = problem("mlp")
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    loss = torch_loss("mlp", x, y)
    optimizer = inna_torch.NewtonSummary(
        tensors, lambda: loss(tensors), INNA(), rule=StepSizes(period=3, average=0.5, trust=0.1)
    )
    torch_losses = torch_steps(optimizer, lambda: loss(tensors), 42)
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-9)
    assert all(np.allclose(a, b.detach(), rtol=0, atol=1e-9) for a, b in zip(params, tensors, strict=True))


@pytest.mark.nightly
def test_resumes_bit_for_bit() -> None:
    skip_without("jax", "optax")
    params, state, _ = jax_run("INNAprop", 9, damping=from_the_third_step)
    again, state_again, _ = jax_run("INNAprop", 9, resume_at=4, damping=from_the_third_step)
    import jax

    pairs = zip(jax.tree.leaves((params, state)), jax.tree.leaves((again, state_again)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.nightly
def test_damping_may_be_a_schedule() -> None:
    skip_without("jax", "optax")
    start, two, three = (jax_run("INNAprop", steps, damping=from_the_third_step) for steps in (0, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(two[0], start[0], strict=True))
    assert np.any(np.asarray(two[1].sizes.eta) > 0)
    assert not any(np.array_equal(a, b) for a, b in zip(three[0], two[0], strict=True))


def test_step_sizes_are_solved_in_float64_without_x64() -> None:
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
    np.testing.assert_allclose(eta, rule.step_sizes(rule.update(wide, rule.init(wide))), rtol=1e-6)


def test_works_in_chain_and_multi_steps() -> None:
    """Two gradients a step make the steps of the torch optimizer."""
    skip_without("jax", "optax", "torch")
    import jax
    import jax.numpy as jnp
    import optax
    import torch

    import inna_optax
    import inna_torch

    jax.config.update("jax_enable_x64", True)

    def loss(p: Any) -> Any:
        return ((p["w"] - 1.0) ** 2).sum()

    rule = StepSizes(period=2)
    plain = inna_optax.newton_summary(INNA(), rule=rule)
    optimizer = optax.MultiSteps(optax.chain(optax.identity(), plain), 2)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.zeros(3)}
    state = optimizer.init(params)
    for _ in range(8):
        params, state = step(params, state)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    other = inna_torch.NewtonSummary([w], lambda: loss({"w": w}), INNA(), rule=rule)
    torch_steps(other, lambda: loss({"w": w}), 4)
    np.testing.assert_allclose(params["w"], w.detach(), rtol=1e-6)
    assert not np.any(w.detach().numpy() == 0)


def test_update_without_a_loss_is_refused() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"Invalid value_fn: None \(expected"):
        optimizer.update(params, optimizer.init(params), params)


def test_gradients_of_another_structure_are_named() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(), {"w": jnp.ones(2)}
    state: Any = optimizer.init(params)
    for gradients, momentum, message in (("v", "w", "Invalid updates: "), ("w", "v", "Invalid state.momentum: ")):
        wrong = state._replace(algorithm={"momentum": {momentum: jnp.ones(2)}})
        with pytest.raises(ValueError, match=rf"{message}a tree .* \(expected the structure of params, "):
            optimizer.update({gradients: jnp.ones(2)}, wrong, params, value_fn=lambda p: jnp.sum(p["w"]))


def test_a_wrong_state_is_named() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp
    import optax

    import inna_optax

    params = {"w": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"Invalid state: \w+ \(expected NewtonSummaryState, as init returns it\)"):
        inna_optax.newton_summary().update(params, optax.sgd(0.1).init(params), params, value_fn=jnp.sum)


def between_two_summaries(optimizer: Any, params: Any) -> Any:
    """Return a state whose next step takes the step sizes that it finds."""
    import jax.numpy as jnp

    state = optimizer.init(params)
    sizes = state.sizes._replace(refreshes=jnp.asarray(9, jnp.int32), eta=jnp.ones_like(state.sizes.eta))
    return state._replace(step=jnp.asarray(101, jnp.int32), sizes=sizes)


def no_loss(params: Any) -> Any:
    raise AssertionError("The loss was called between two summaries")


def test_a_schedule_of_negative_dampings_is_refused() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(damping=lambda step: -1.0), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"Invalid damping: -1.0 \(expected a finite number >= 0\)"):
        optimizer.update(params, between_two_summaries(optimizer, params), params, value_fn=no_loss)


def test_an_integer_damping_can_be_injected() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp
    import optax

    import inna_optax

    optimizer, params = optax.inject_hyperparams(inna_optax.newton_summary)(damping=2), {"w": jnp.ones(2)}
    state: Any = optimizer.init(params)
    inner = between_two_summaries(inna_optax.newton_summary(), params)
    updates: Any = optimizer.update(params, state._replace(inner_state=inner), params, value_fn=no_loss)[0]
    assert np.array_equal(updates["w"], [-2.0, -2.0])


@pytest.mark.parametrize("kind", ["Python numbers", "NumPy", "abstract"])
def test_the_state_is_made_from_leaves_that_are_no_jax_arrays_yet(kind: str) -> None:
    skip_without("jax", "optax")
    import jax
    import jax.numpy as jnp

    import inna_optax

    kinds: dict[str, Any] = {
        "Python numbers": float,
        "NumPy": np.asarray,
        "abstract": lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
    }
    params = {"w": jnp.asarray(1.5)}
    want = inna_optax.newton_summary().init(params)
    found = inna_optax.newton_summary().init(jax.tree.map(kinds[kind], params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, x.dtype), want)


@pytest.mark.parametrize("gradient", ["bfloat16", "float16"])
def test_gradients_may_have_another_precision(gradient: str) -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(), {"w": jnp.ones(2, jnp.float32)}
    state, grads = between_two_summaries(optimizer, params), {"w": jnp.asarray([0.5, -2.0], gradient)}
    found: Any = optimizer.update(grads, state, params, value_fn=no_loss)
    updates, new_state = found
    assert updates["w"].dtype == new_state.algorithm["momentum"]["w"].dtype == jnp.float32
    np.testing.assert_allclose(updates["w"], -0.3 * grads["w"].astype("float32"), rtol=1e-6)


def test_gradients_of_another_shape_or_kind_are_named() -> None:
    skip_without("jax", "optax")
    import jax.numpy as jnp

    import inna_optax

    optimizer, params = inna_optax.newton_summary(), {"w": jnp.ones(2)}
    state = between_two_summaries(optimizer, params)
    for wrong, message in ((jnp.ones(1), "shape"), (jnp.ones(2, int), "dtype")):
        with pytest.raises((TypeError, ValueError), match=rf"Invalid updates\['w'\]: a gradient of {message} "):
            optimizer.update({"w": wrong}, state, params, value_fn=no_loss)
