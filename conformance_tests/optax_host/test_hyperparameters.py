"""Hyperparameters of the optax transformations: injected, scheduled, traced, masks, momentum and lead."""

from typing import Any

import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

import inna_optax  # noqa: E402
from conformance_tests.optax_host import scenarios as rows  # noqa: E402
from conformance_tests.optax_host.scenarios import TRANSFORMS, gradients, largest_difference, make, tree  # noqa: E402
from inna_core.schedules import PowerDecay  # noqa: E402

# long, so on the worker that begins with the matrix' rows of optax
pytestmark = pytest.mark.xdist_group("optax")

ROUNDING = 1e-13
"""A few float64 steps in another order of operations; a wrong step is off by 1e-2 here."""

each_transform = pytest.mark.parametrize("name", TRANSFORMS)
each_damped_transform = pytest.mark.parametrize("name", [name for name in TRANSFORMS if "alpha" in rows.HYPER[name]])


@pytest.mark.parametrize(
    ("name", "hyperparameter"), [(name, hyperparameter) for name in TRANSFORMS for hyperparameter in rows.HYPER[name]]
)
def test_injected_hyperparameters_can_be_changed_between_steps(name: str, hyperparameter: str) -> None:
    params, grads = tree(0), gradients()
    injected = optax.inject_hyperparams(TRANSFORMS[name])(**rows.HYPER[name])
    step = jax.jit(lambda *args: rows.one_step(injected, *args))
    got, state = params, injected.init(params)
    want, plain_state = params, make(name).init(params)
    for k, g in enumerate(grads):
        value = rows.HYPER[name][hyperparameter] * (1 if k < 2 else 0.5)
        state.hyperparams[hyperparameter] = jnp.asarray(value, state.hyperparams[hyperparameter].dtype)
        got, state = step(got, state, g)
        want, plain_state = rows.one_step(make(name, **{hyperparameter: value}), want, plain_state, g)
    assert largest_difference(got, want) <= ROUNDING
    assert step._cache_size() == 1


@each_damped_transform
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


@each_damped_transform
def test_integers_can_be_injected(name: str) -> None:
    params, grads = tree(0), gradients()
    integers = {"learning_rate": 1, "alpha": 2, "beta": 3, "weight_decay": 0}
    want, _ = rows.plain(TRANSFORMS[name](**{key: float(value) for key, value in integers.items()}), params, grads)
    for run in (rows.plain, rows.jitted):
        got, _ = run(optax.inject_hyperparams(TRANSFORMS[name])(**integers), params, grads)
        assert largest_difference(got, want) <= ROUNDING


@each_transform
def test_a_mask_that_is_a_function_is_no_schedule_to_inject(name: str) -> None:
    """`inject_hyperparams` takes every callable for a schedule, unless it is told otherwise."""
    params, grads = tree(0), gradients()
    arguments = {**rows.HYPER[name], "mask": lambda params: jax.tree.map(lambda p: p.ndim > 1, params)}
    got, _ = rows.jitted(optax.inject_hyperparams(TRANSFORMS[name], static_args="mask")(**arguments), params, grads)
    want, _ = rows.plain(TRANSFORMS[name](**arguments), params, grads)
    assert largest_difference(got, want) <= ROUNDING


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


@pytest.mark.parametrize("nesterov", [False, True])
def test_leads_1_and_1_plus_momentum_are_the_heavy_ball_and_nesterovs_of_sgd(nesterov: bool) -> None:
    ours = inna_optax.inna(0.1, momentum=0.9, lead=None if nesterov else 1.0)
    got, _ = rows.plain(ours, tree(0), gradients())
    want, _ = rows.plain(optax.sgd(0.1, momentum=0.9, nesterov=nesterov), tree(0), gradients())
    assert largest_difference(got, want) <= 1e-10


@each_damped_transform
def test_momentum_may_be_injected_and_scheduled(name: str) -> None:
    def momentum(step: Any) -> Any:
        return 0.9 - 0.01 * step

    def lr(step: Any) -> Any:
        return 0.01 * step  # 0 at first, where alpha would be infinite

    make = TRANSFORMS[name]
    got, state = rows.plain(optax.inject_hyperparams(make)(learning_rate=lr, momentum=momentum), tree(0), gradients())
    params, own = tree(0), make(0.1, momentum=0.9).init(tree(0))
    for k, g in enumerate(gradients()):
        params, own = rows.one_step(make(0.01 * k, momentum=0.9 - 0.01 * k), params, own, g)
    assert largest_difference(got, params) <= ROUNDING
    assert set(state.hyperparams) >= {"momentum", "learning_rate"}


@each_damped_transform
def test_derivatives_by_momentum_pass_a_step_at_learning_rate_zero(name: str) -> None:
    def loss(momentum: Any) -> Any:
        transform = TRANSFORMS[name](lambda k: 0.1 * k, momentum=momentum)
        params, _ = rows.plain(transform, {"x": jnp.ones(3)}, [{"x": jnp.full(3, 1.0 + k)} for k in range(4)])
        return jnp.sum(params["x"] ** 2)

    quotient = (loss(0.9 + 1e-6) - loss(0.9 - 1e-6)) / 2e-6
    assert float(jax.grad(loss)(0.9)) == pytest.approx(float(quotient), rel=1e-6)
