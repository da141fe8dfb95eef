"""The optax transformations inside everything that optax, JAX and their users put around them."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

import inna_optax  # noqa: E402
from conformance_tests import optax_rows as rows  # noqa: E402
from conformance_tests.optax_rows import N_STEPS, RUNS, TRANSFORMS, gradients, largest_difference, make, tree  # noqa: E402
from inna_core.schedules import PowerDecay  # noqa: E402

ROUNDING = 1e-13
"""A few float64 steps in another order of operations; a wrong step is off by 1e-2 here."""

each_transform = pytest.mark.parametrize("name", TRANSFORMS)


def step_of(state: Any) -> int:
    return int(state.step)


@each_transform
@pytest.mark.parametrize("run", RUNS)
def test_a_composition_makes_the_steps_of_a_plain_loop(name: str, run: str) -> None:
    params, grads = tree(0), gradients()
    want = rows.plain(make(name), params, grads)
    got = RUNS[run](make(name), params, grads)
    assert largest_difference(got, want) <= ROUNDING
    assert step_of(got[1]) == N_STEPS
    # what is compared must have moved
    assert largest_difference(want[0], params) > 1e-2


@each_transform
def test_masked_leaves_are_left_to_others(name: str) -> None:
    params, grads = tree(0), gradients()
    mask = {"kernel": True, "bias": False, "more": [True, None]}
    masked = optax.masked(make(name), mask)
    got, state = rows.plain(masked, params, grads)
    want, _ = rows.plain(make(name), params, grads)
    assert largest_difference(got["kernel"], want["kernel"]) <= ROUNDING
    # optax adds the gradient itself where the mask is False
    assert largest_difference(got["bias"], params["bias"] + sum(g["bias"] for g in grads)) <= ROUNDING
    assert isinstance(state.inner_state.velocity["bias"], optax.MaskedNode)


@each_transform
def test_partition_keeps_two_of_them_apart(name: str) -> None:
    params, grads = tree(0), gradients()
    labels = {"kernel": "slow", "bias": "fast", "more": ["slow", None]}
    slow, fast = make(name, learning_rate=0.01), make(name, learning_rate=0.1)
    got, _ = rows.plain(optax.partition({"slow": slow, "fast": fast}, labels), params, grads)
    for label, transform in (("slow", slow), ("fast", fast)):
        want, _ = rows.plain(transform, params, grads)
        for key in (key for key in ("kernel", "bias") if labels[key] == label):
            assert largest_difference(got[key], want[key]) <= ROUNDING


@each_transform
@pytest.mark.parametrize("hyperparameter", ["learning_rate", "alpha", "beta", "weight_decay"])
def test_injected_hyperparameters_can_be_changed_between_steps(name: str, hyperparameter: str) -> None:
    params, grads = tree(0), gradients()
    injected = optax.inject_hyperparams(TRANSFORMS[name])(**rows.HYPER[name])
    step = jax.jit(lambda *args: rows.one_step(injected, *args))
    got, state = params, injected.init(params)
    want, plain_state = params, make(name).init(params)
    for k, g in enumerate(grads):
        value = rows.HYPER[name][hyperparameter] * (1 if k < 2 else 1.5)
        state.hyperparams[hyperparameter] = jnp.asarray(value, state.hyperparams[hyperparameter].dtype)
        got, state = step(got, state, g)
        want, plain_state = rows.one_step(make(name, **{hyperparameter: value}), want, plain_state, g)
    assert largest_difference(got, want) <= ROUNDING
    assert step._cache_size() == 1


@each_transform
def test_a_traced_hyperparameter_may_make_alpha_lr_1(name: str) -> None:
    """There the velocity forgets its past: the increment could not be computed from the next velocity."""
    params, grads = tree(0), gradients()
    lr, alpha = jnp.asarray(0.25), 4.0
    want, _ = rows.plain(make(name, learning_rate=0.25, alpha=alpha), params, grads)
    for run in (rows.plain, rows.jitted):
        for rate in (lr, lambda step: lr):
            got, _ = run(make(name, learning_rate=rate, alpha=alpha), params, grads)
            assert largest_difference(got, want) <= ROUNDING


@each_transform
@pytest.mark.parametrize(
    "schedule", [PowerDecay(0.1, 0.5), lambda step: 0.1 * (step + 1.0) ** -0.5], ids=["ours", "any"]
)
def test_schedules_are_evaluated_inside(name: str, schedule: Any) -> None:
    params, grads = tree(0), gradients()
    got, _ = rows.jitted(make(name, learning_rate=schedule), params, grads)
    want, state = params, make(name).init(params)
    for k, g in enumerate(grads):
        want, state = rows.one_step(make(name, learning_rate=0.1 * (k + 1) ** -0.5), want, state, g)
    assert largest_difference(got, want) <= ROUNDING


@each_transform
def test_map_params_reaches_the_state_that_is_like_the_parameters(name: str) -> None:
    params, grads = tree(0), gradients()
    transform = make(name)
    _, state = rows.plain(transform, params, grads)
    doubled = optax.tree.map_params(transform, lambda x: 2 * x, state)
    assert step_of(doubled) == N_STEPS
    for field in (field for field in state._fields if field != "step"):
        want = jax.tree.map(lambda x: 2 * x, getattr(state, field))
        assert largest_difference([getattr(doubled, field), 0.0 * params["bias"]], [want, 0.0 * params["bias"]]) == 0.0


@each_transform
def test_the_derivative_through_steps_is_that_of_the_steps(name: str) -> None:
    params, grads = tree(0), gradients()

    def loss(scale: Any) -> Any:
        scaled = jax.tree.map(lambda p: scale * p, params)
        return optax.tree.norm(rows.plain(make(name), scaled, grads)[0], squared=True)

    h = 1e-4
    assert np.isclose(jax.grad(loss)(1.0), (loss(1 + h) - loss(1 - h)) / (2 * h), rtol=1e-7)
    assert np.isclose(jax.jvp(loss, (1.0,), (1.0,))[1], jax.grad(loss)(1.0), rtol=1e-12)


@each_transform
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_lets_derivatives_pass(name: str, dtype: str) -> None:
    """A compensated update depends on the learning rate as one in float32 does, however small it is."""
    g = jnp.asarray([0.5, -1.0, 2.0])

    def moved(lr: Any, dtype: Any) -> Any:
        transform, p = make(name, learning_rate=lr), jnp.ones(3, dtype)
        updates: Any = transform.update(g.astype(dtype), transform.init(p), p)[0]
        return jnp.sum(updates.astype("float32") * g)

    for lr in (1e-5, 1e-2):  # below float16's normal numbers, and among them
        want = jax.grad(moved)(lr, "float32")
        assert np.isclose(jax.grad(moved)(lr, dtype), want, rtol=0.01)
        assert want != 0.0


@each_transform
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes_and_structure_stay(name: str, dtype: str) -> None:
    params = tree(0, dtype)
    transform = make(name, learning_rate=PowerDecay(0.05, 0.5))
    state = transform.init(params)
    wide = "float32" if dtype in ("bfloat16", "float16") else dtype
    for g in gradients(dtype=dtype):
        updates, new_state = jax.jit(transform.update)(g, state, params)
        assert jax.tree.structure((updates, new_state)) == jax.tree.structure((params, state))
        assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        assert [x.dtype for x in jax.tree.leaves(new_state)] == [x.dtype for x in jax.tree.leaves(state)]
        assert {v.dtype for v in jax.tree.leaves(new_state.velocity)} == {jnp.dtype(wide)}
        state = new_state


@each_transform
def test_complex_parameters_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"complex128.*expected a real floating-point dtype"):
        make(name).init({"w": jnp.ones(3, jnp.complex128)})


@each_transform
def test_missing_parameters_are_named_where_they_are_needed(name: str) -> None:
    params, grads = tree(0), gradients()
    transform = make(name)
    with pytest.raises(ValueError, match=r"Invalid params: None \(expected the current parameters"):
        transform.update(grads[0], transform.init(params))
    without = make(name, weight_decay=0.0)
    alone, _ = without.update(grads[0], without.init(params))
    given, _ = without.update(grads[0], without.init(params), params)
    assert largest_difference(alone, given) == 0.0


@each_transform
@pytest.mark.parametrize("rate", [0.01, PowerDecay(0.01, 0.5), optax.cosine_decay_schedule(0.01, 100)], ids=type)
def test_no_step_but_the_first_compiles(name: str, rate: Any) -> None:
    transform = make(name, learning_rate=rate)
    step = jax.jit(lambda *args: rows.one_step(transform, *args))
    params = tree(0, "float32")
    state = transform.init(params)
    for g in gradients(dtype="float32"):
        params, state = step(params, state, g)
    assert step._cache_size() == 1


def test_the_state_does_not_alias_the_parameters() -> None:
    params = tree(0)
    pointers = {p.unsafe_buffer_pointer() for p in jax.tree.leaves(params)}
    for name in TRANSFORMS:
        state = make(name, kahan_sum=True).init(params)
        assert not pointers & {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)}


@each_transform
def test_the_mask_of_the_decay_may_be_a_function(name: str) -> None:
    params, grads = tree(0), gradients()
    by_rank = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    got, _ = rows.jitted(make(name, mask=by_rank), params, grads)
    with_decay, _ = rows.plain(make(name), params, grads)
    without, _ = rows.plain(make(name, weight_decay=0.0), params, grads)
    assert largest_difference(got["kernel"], with_decay["kernel"]) <= ROUNDING
    assert largest_difference(got["bias"], without["bias"]) <= ROUNDING
    assert largest_difference(with_decay["bias"], without["bias"]) > 1e-3


def test_every_public_transformation_is_tested_here() -> None:
    public = {name for name in inna_optax.__all__ if name.startswith("inna")}
    assert public == set(TRANSFORMS)
