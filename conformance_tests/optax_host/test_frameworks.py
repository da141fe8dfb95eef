"""The optax transformations in the training loops of JAX's libraries."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

from conformance_tests.optax_host import scenarios as rows  # noqa: E402
from conformance_tests.optax_host.scenarios import TRANSFORMS, largest_difference, make  # noqa: E402

pytestmark = pytest.mark.nightly

N_STEPS = 5

X = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
Y = X @ np.asarray([[1.0], [-2.0], [0.5]], np.float32) + 0.3
START = {"kernel": np.zeros((3, 1), np.float32), "bias": np.zeros(1, np.float32)}

each_transform = pytest.mark.parametrize("name", TRANSFORMS)


def loss_of(kernel: Any, bias: Any) -> Any:
    return jnp.mean((X @ kernel + bias - Y) ** 2)


def reference(name: str) -> dict[str, Any]:
    """Return the parameters of a linear model after a loop by hand."""
    params = jax.tree.map(jnp.asarray, START)
    transform = make(name)
    state = transform.init(params)
    for _ in range(N_STEPS):
        grads = jax.grad(lambda p: loss_of(**p))(params)
        params, state = rows.one_step(transform, params, state, grads)
    return params


def check(name: str, kernel: Any, bias: Any) -> None:
    want = reference(name)
    assert largest_difference({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}, want) <= 1e-5
    assert loss_of(**want) < 0.9 * loss_of(**START)


@each_transform
def test_flax_nnx_optimizer(name: str) -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0), kernel_init=nnx.initializers.zeros)
    optimizer = nnx.Optimizer(model, make(name), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        grads = nnx.grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
        optimizer.update(model, grads)

    for _ in range(N_STEPS):
        step(model, optimizer)
    check(name, model.kernel[...], model.bias[...])


@each_transform
def test_flax_linen_train_state(name: str) -> None:
    linen = pytest.importorskip("flax.linen", reason="Flax is not installed")
    from flax.training.train_state import TrainState  # pyright: ignore[reportMissingImports]

    model = linen.Dense(1, kernel_init=linen.initializers.zeros)
    state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(0), jnp.asarray(X)), tx=make(name))

    @jax.jit
    def step(state: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean((state.apply_fn(p, X) - Y) ** 2))(state.params)
        return state.apply_gradients(grads=grads)

    for _ in range(N_STEPS):
        state = step(state)
    check(name, **state.params["params"])


@each_transform
def test_equinox(name: str) -> None:
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    model = eqx.nn.Linear(3, 1, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: (m.weight, m.bias), model, (jnp.zeros((1, 3)), jnp.zeros(1)))
    model = jax.tree.map(lambda p: p.astype(jnp.float32), model)
    transform = make(name)
    state = transform.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        grads = eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))(model)
        updates, state = transform.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(N_STEPS):
        model, state = step(model, state)
    check(name, model.weight.T, model.bias)


@each_transform
@pytest.mark.filterwarnings("ignore::DeprecationWarning:haiku")
def test_haiku(name: str) -> None:
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")
    model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(1, w_init=hk.initializers.Constant(0.0))(x)))
    params = model.init(jax.random.key(0), jnp.asarray(X))
    transform = make(name)
    state = transform.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean((model.apply(p, X) - Y) ** 2))(params)
        return rows.one_step(transform, params, state, grads)

    for _ in range(N_STEPS):
        params, state = step(params, state)
    check(name, params["linear"]["w"], params["linear"]["b"])


@each_transform
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_orbax_restores_the_trajectory_bitwise(name: str, dtype: str, tmp_path: Any) -> None:
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax is not installed")
    transform = make(name)
    step = jax.jit(lambda *args: rows.one_step(transform, *args))
    params = rows.tree(0, dtype)
    state = transform.init(params)
    grads = rows.gradients(6, dtype)
    for g in grads[:3]:
        params, state = step(params, state, g)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", {"params": params, "state": state})
        checkpointer.wait_until_finished()
        fresh = {"params": rows.tree(7, dtype), "state": transform.init(params)}
        restored = checkpointer.restore(tmp_path / "saved", fresh)
    resumed_params, resumed_state = restored["params"], restored["state"]
    for g in grads[3:]:
        params, state = step(params, state, g)
        resumed_params, resumed_state = step(resumed_params, resumed_state, g)
    assert largest_difference((resumed_params, resumed_state), (params, state)) == 0.0
