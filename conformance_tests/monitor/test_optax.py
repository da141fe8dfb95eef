"""`inna_optax.monitor`: what it leaves alone, where it works, networks, complex parameters, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.tiers import nightly_but

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

import inna_optax  # noqa: E402
from inna_optax import inna, innaprop, monitor  # noqa: E402

Transformation = Callable[[Any], Any]
SHAPES = {"a": (3, 4), "b": (4,), "c": (4, 2)}
PARAMS = {
    name: jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)
    for i, (name, shape) in enumerate(SHAPES.items())
}
X = jnp.asarray(np.random.default_rng(7).normal(size=(8, 3)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(8).normal(size=(8, 2)), jnp.float32)


def loss(params: Any) -> Any:
    x, y = X.astype(params["a"].dtype), Y.astype(params["a"].dtype)
    return jnp.mean((jnp.tanh(x @ params["a"] + params["b"]) @ params["c"] - y) ** 2)


def step_of(transform: Any, value_fn: Any = loss) -> Callable[..., Any]:
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = transform.update(grads, state, params, value=value, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    return step


def loop(transform: Any, n: int = 6) -> tuple[Any, Any]:
    step, params, state = jax.jit(step_of(transform)), PARAMS, transform.init(PARAMS)
    for _ in range(n):
        params, state = step(params, state)
    return params, state


def donated(transform: Any) -> tuple[Any, Any]:
    step = jax.jit(step_of(transform), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = transform.init(params)
    for _ in range(6):
        params, state = step(params, state)
    return params, state


def scanned(transform: Any) -> tuple[Any, Any]:
    step = step_of(transform)
    carry = PARAMS, transform.init(PARAMS)
    return jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, None, 6)[0])(carry)


def mapped(transform: Any) -> tuple[Any, Any]:
    params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    state, step = jax.vmap(transform.init)(params), jax.jit(jax.vmap(step_of(transform)))
    for _ in range(6):
        params, state = step(params, state)
    return params, state


def eager(transform: Any) -> tuple[Any, Any]:
    step, params, state = step_of(transform), PARAMS, transform.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    return params, state


def partition(factory: Transformation) -> Any:
    """Train two of three arrays; the third comes from outside."""

    def restored(update: Any) -> Any:
        def call(updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra: Any) -> Any:
            def masked(own: Any) -> Any:
                return value_fn({**own, "c": PARAMS["c"]})

            return update(updates, state, params, value_fn=value_fn and masked, **extra)

        return call

    inner = factory(inna(0.05, momentum=0.9))
    return optax.partition(
        {
            "own": optax.GradientTransformationExtraArgs(inner.init, restored(inner.update)),
            "fixed": optax.set_to_zero(),
        },
        {"a": "own", "b": "own", "c": "fixed"},
    )


WAYS: dict[str, tuple[Callable[[Transformation], Any], Callable[[Any], Any]]] = {
    "inna": (lambda wrap: wrap(inna(0.05)), loop),
    "innaprop": (lambda wrap: wrap(innaprop(0.01, momentum=0.9)), loop),
    "eager": (lambda wrap: wrap(innaprop(0.01, momentum=0.9)), eager),
    "schedule": (lambda wrap: wrap(inna(optax.linear_schedule(0.1, 0.0, 6), momentum=0.9)), loop),
    "scan": (lambda wrap: wrap(inna(0.05)), scanned),
    "vmap": (lambda wrap: wrap(innaprop(0.01)), mapped),
    "donated": (lambda wrap: wrap(innaprop(0.01)), donated),
    "chain": (lambda wrap: optax.chain(optax.clip_by_global_norm(1.0), wrap(inna(0.05))), loop),
    "inject": (lambda wrap: optax.inject_hyperparams(lambda learning_rate: wrap(inna(learning_rate)))(0.05), loop),
    "MultiSteps": (lambda wrap: optax.MultiSteps(wrap(inna(0.05)), 2), loop),
    "partition": (partition, loop),
}


@pytest.mark.parametrize("way", nightly_but(["scan"], WAYS))
def test_a_monitor_changes_no_bit(way: str) -> None:
    build, run = WAYS[way]
    params, state = run(build(lambda inner: monitor(inner, every=1, sharpness_every=1)))
    expected, expected_state = run(build(lambda inner: inner))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    for name in ("velocity", "second_moment"):
        found = optax.tree.get(state, name)
        jax.tree.map(np.testing.assert_array_equal, found, optax.tree.get(expected_state, name))
    metrics = optax.tree.get(state, "metrics")
    assert np.isfinite(metrics.energy).all()
    assert np.isfinite(metrics.sharpness).all()
    assert (np.asarray(metrics.step) >= 1).all()


@pytest.mark.nightly
@pytest.mark.parametrize("factory", [inna, innaprop])
def test_the_sharpness_of_a_network_is_that_of_the_full_hessian(factory: Any) -> None:
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    transform = monitor(factory(1e-3), every=1, sharpness_every=1, iterations=flat.size)
    state: Any = transform.init(params)
    step = jax.jit(step_of(transform))
    before = params
    for _ in range(3):
        before, (params, state) = params, step(params, state)
    hessian = jax.hessian(lambda theta: loss(unravel(theta)))(jax.flatten_util.ravel_pytree(before)[0])
    if factory is innaprop:
        s, g, at = jnp.zeros(flat.size), jax.grad(loss), [jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)]
        at.append(step(at[0], transform.init(at[0]))[0])
        for theta in at:
            s = 0.999 * s + 0.001 * jax.flatten_util.ravel_pytree(g(theta))[0] ** 2
        root = jnp.sqrt(jnp.sqrt(s / (1 - 0.999**2)) + 1e-8)
        hessian = hessian / jnp.outer(root, root)
    assert state.metrics.sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-9)


@pytest.mark.nightly
def test_complex_parameters_count_as_two_real_ones() -> None:
    c = jnp.asarray([1.0, 5.0])
    value_fn = lambda p: jnp.sum(c * jnp.abs(p) ** 2) / 2  # noqa: E731
    params = jnp.asarray([1.0 + 2.0j, 3.0j])
    transform = monitor(inna(0.01, momentum=0.9), every=1, sharpness_every=1)
    state: Any = transform.init(params)
    velocity = before = params
    for _ in range(2):
        updates, state = transform.update(jnp.conj(jax.grad(value_fn)(params)), state, params, value_fn=value_fn)
        velocity, before = state.inner_state.velocity, params
        params = optax.apply_updates(params, updates)
    assert state.metrics.sharpness == pytest.approx(5.0, rel=1e-12)
    assert state.metrics.loss == pytest.approx(float(value_fn(before)), rel=1e-12)
    _, state = transform.update(jnp.zeros(2, complex), state, params)
    assert state.metrics.velocity_norm == pytest.approx(float(jnp.linalg.norm(velocity)), rel=1e-12)
    assert np.isnan([state.metrics.loss, state.metrics.energy, state.metrics.sharpness]).all()


@pytest.mark.nightly
def test_samples_are_taken_on_time() -> None:
    transform = monitor(inna(0.01), every=2, sharpness_every=4)
    params, state, samples = PARAMS, transform.init(PARAMS), []
    step = jax.jit(step_of(transform))
    for _ in range(9):
        params, state = step(params, state)
        samples.append((int(state.metrics.step), bool(np.isfinite(state.metrics.sharpness))))
    assert samples == [(0, False)] * 2 + [(2, False)] * 2 + [(4, True)] * 2 + [(6, False)] * 2 + [(8, True)]


@pytest.mark.nightly
def test_no_parameters_have_no_sharpness() -> None:
    transform = monitor(innaprop(0.01), every=1, sharpness_every=1)
    state: Any = transform.init({})
    for _ in range(2):
        _, state = transform.update({}, state, {}, value_fn=lambda _: jnp.asarray(1.0))
    assert state.metrics.velocity_norm == state.metrics.sharpness == 0.0


@pytest.mark.nightly
def test_a_loss_that_is_not_finite_is_recorded() -> None:
    transform = monitor(inna(0.01), every=1, sharpness_every=1)
    params = jnp.ones(2)
    state: Any = transform.init(params)
    for _ in range(2):
        _, state = transform.update(params, state, params, value_fn=lambda p: jnp.sum(p**2) * jnp.nan)
    assert np.isnan([state.metrics.loss, state.metrics.sharpness]).all()
    assert np.isfinite(state.metrics.velocity_norm)


def updated(params: Any = PARAMS, **more: Any) -> Any:
    transform = monitor(inna(0.01), every=1, sharpness_every=1)
    state = transform.init(PARAMS)
    for _ in range(2):
        _, state = transform.update(PARAMS, state, params, **more)
    return state


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "foreign": (lambda: monitor(optax.sgd(0.1)), TypeError, "Invalid inner: "),
    "chained": (lambda: monitor(optax.chain(inna(0.1))), TypeError, "expected what inna or innaprop returned"),
    "every": (lambda: monitor(inna(0.1), every=0), ValueError, "Invalid every: 0"),
    "state": (
        lambda: monitor(inna(0.1)).update(PARAMS, inna(0.1).init(PARAMS), PARAMS),
        TypeError,
        r"Invalid state: INNAState \(expected MonitorState",
    ),
    "params": (lambda: updated(None, value_fn=loss), ValueError, "Invalid params: None"),
    "value": (lambda: updated(value=jnp.ones(2)), ValueError, r"Invalid value: shape \(2,\) \(expected a scalar\)"),
    "value_fn": (lambda: updated(value_fn=lambda p: p["b"]), ValueError, r"Invalid value_fn: it returned shape \(4,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.nightly
def test_a_monitored_state_is_saved_and_loaded(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    params, state = loop(monitor(inna(0.05), every=1, sharpness_every=1))
    inna_optax.save_state(tmp_path / "state.safetensors", state, params)
    fresh = monitor(inna(0.05), every=1, sharpness_every=1).init(PARAMS)
    loaded, _ = inna_optax.load_state(tmp_path / "state.safetensors", fresh, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, loaded.inner_state, state.inner_state)
