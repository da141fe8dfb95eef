"""The optax transformations inside everything that optax, JAX and their users put around them."""

from itertools import product
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

import inna_optax  # noqa: E402
from conformance_tests.matrix.cases import EPS  # noqa: E402
from conformance_tests.matrix.rows import FULLEST  # noqa: E402
from conformance_tests.optax_host import scenarios as rows  # noqa: E402
from conformance_tests.optax_host.scenarios import N_STEPS, RUNS, TRANSFORMS, gradients, largest_difference, make, tree  # noqa: E402
from inna_core.schedules import PowerDecay  # noqa: E402

# long, so on the worker that begins with the matrix' rows of optax
pytestmark = pytest.mark.xdist_group("optax")

ROUNDING = 1e-13
"""A few float64 steps in another order of operations; a wrong step is off by 1e-2 here."""

each_transform = pytest.mark.parametrize("name", TRANSFORMS)


def step_of(state: Any) -> int:
    return int(state.step)


BOUNDS = {"float64": ROUNDING, "bfloat16": EPS["bfloat16"] / 2, "complex128": ROUNDING}


def compositions() -> list[Any]:
    """Return (name, run, dtype, bound), nightly but jit, and all others in float64 with the largest state."""
    found = []
    for name, run, (dtype, bound) in product(TRANSFORMS, RUNS, BOUNDS.items()):
        default = run == "jit" or (dtype == "float64" and name == FULLEST.optax)
        # MultiSteps averages gradients in float32, whatever they are
        if dtype != "complex128" or "MultiSteps" not in run:
            found.append(pytest.param(name, run, dtype, bound, marks=[] if default else [pytest.mark.nightly]))
    return found


@pytest.mark.parametrize(("name", "run", "dtype", "bound"), compositions())
def test_a_composition_makes_the_steps_of_a_plain_loop(name: str, run: str, dtype: str, bound: float) -> None:
    params, grads = tree(0, dtype), gradients(dtype=dtype)
    want = rows.plain(make(name), params, grads)
    got = RUNS[run](make(name), params, grads)
    assert largest_difference(got, want) <= bound
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
def test_map_params_reaches_the_state_that_is_like_the_parameters(name: str) -> None:
    params, grads = tree(0), gradients()
    transform = make(name)
    _, state = rows.plain(transform, params, grads)
    doubled = optax.tree.map_params(transform, lambda x: 2 * x, state)
    assert step_of(doubled) == N_STEPS
    for field in (field for field in state._fields if field not in ("step", "compensation")):
        want = jax.tree.map(lambda x: 2 * x, getattr(state, field))
        assert largest_difference(getattr(doubled, field), want) == 0.0


@each_transform
@pytest.mark.parametrize(
    ("dtype", "kahan_sum"),
    [("float32", None), ("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)],
)
def test_map_params_lays_another_tree_along_the_state(name: str, dtype: str, kahan_sum: bool | None) -> None:
    """As one does to find the sharding of a state from that of the parameters."""
    transform = make(name, kahan_sum=kahan_sum)
    state = jax.eval_shape(transform.init, tree(0, dtype))
    specs = {"kernel": "matrix", "bias": "vector", "more": ["scalar", None]}
    found = optax.tree.map_params(transform, lambda _, spec: spec, state, specs, transform_non_params=lambda _: "step")
    assert found.step == "step"
    for field in (field for field in state._fields if field not in ("step", "compensation")):
        assert getattr(found, field) == specs
    assert found.compensation == (specs if kahan_sum else None)
    assert jax.tree.structure(found) == jax.tree.structure(state)


PLAIN = {"a": 1.0, "b": -0.5}
KINDS: dict[str, Any] = {
    "Python numbers": lambda x: x,
    "NumPy float64": np.float64,
    "NumPy arrays of float64": lambda x: np.asarray(x, np.float64),
}
"""Leaves that are no JAX arrays; without x64 JAX computes with them in float32."""


@each_transform
@pytest.mark.parametrize("kind", KINDS)
def test_leaves_may_be_no_jax_arrays_yet(name: str, kind: str) -> None:
    with jax.enable_x64(False):
        arrays = {key: jnp.asarray(x) for key, x in PLAIN.items()}
        transform, grads = make(name), [arrays, jax.tree.map(jnp.cos, arrays)]
        want = rows.plain(transform, arrays, grads)
        others = lambda tree: jax.tree.map(lambda x: KINDS[kind](float(x)), tree)  # noqa: E731
        got = rows.plain(transform, others(PLAIN), [others(g) for g in grads])
        assert largest_difference(got, want) == 0.0


@each_transform
def test_a_restored_state_may_hold_numpy_arrays_and_a_plain_step(name: str) -> None:
    transform, params, grads = make(name), tree(0), gradients()
    _, state = rows.plain(transform, params, grads[:3])
    restored = jax.tree.map(np.asarray, state)._replace(step=3)
    (got, new_state), (want, _) = (rows.one_step(transform, params, one, grads[3]) for one in (restored, state))
    assert largest_difference(got, want) == 0.0
    assert step_of(new_state) == 4


@each_transform
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_abstract_parameters_make_the_state(name: str, dtype: str) -> None:
    params = tree(0, dtype)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    assert largest_difference(make(name).init(abstract), make(name).init(params)) == 0.0


@each_transform
@pytest.mark.parametrize(
    ("dtype", "gradient"), [("float32", "bfloat16"), ("float64", "float32"), ("float32", "float64")]
)
@pytest.mark.parametrize("given", [False, True], ids=["without params", "with params"])
def test_gradients_may_have_another_precision(name: str, dtype: str, gradient: str, given: bool) -> None:
    """They are taken as numbers in the parameters' precision, which without parameters is that of the state."""
    params, grads = tree(0, dtype), tree(1, gradient)
    transform = make(name, weight_decay=0.0)
    update = lambda g: transform.update(g, transform.init(params), params if given else None)  # noqa: E731
    exact = jax.tree.map(lambda g: g.astype(dtype), grads)
    assert largest_difference(update(grads), update(exact)) == 0.0
    assert {u.dtype for u in jax.tree.leaves(update(grads)[0])} == {jnp.dtype(dtype)}


@each_transform
def test_a_learning_rate_chained_behind_ascends(name: str) -> None:
    """No transformation sees what follows it, so this cannot be refused; the docstrings warn of it."""
    params = tree(0)
    twice = optax.chain(make(name, weight_decay=0.0), optax.scale_by_learning_rate(1.0))
    grads = jax.grad(optax.tree.norm)(params)
    right, _ = make(name, weight_decay=0.0).update(grads, make(name).init(params), params)
    wrong, _ = twice.update(grads, twice.init(params), params)
    assert optax.tree.vdot(grads, right) < 0 < optax.tree.vdot(grads, wrong)


@each_transform
def test_the_derivative_through_steps_is_that_of_the_steps(name: str) -> None:
    params, grads = tree(0), gradients()

    def loss(scale: Any) -> Any:
        scaled = jax.tree.map(lambda p: scale * p, params)
        return optax.tree.norm(rows.plain(make(name), scaled, grads)[0], squared=True)

    h = 1e-4
    np.testing.assert_allclose(jax.grad(loss)(1.0), (loss(1 + h) - loss(1 - h)) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(loss, (1.0,), (1.0,))[1], jax.grad(loss)(1.0), rtol=1e-12)


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
        np.testing.assert_allclose(jax.grad(moved)(lr, dtype), want, rtol=0.01)
        assert want != 0.0


@each_transform
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "complex64", "complex128"])
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
def test_conjugated_gradients_minimise_a_function_of_complex_parameters(name: str) -> None:
    """The target of optax's own tests; `jax.grad` returns the conjugate of the direction of steepest ascent."""
    goal = jnp.asarray([1.0, -1.0, 1.0], jnp.complex64) * (1 + 1j)
    transform = make(name, learning_rate=0.05, weight_decay=0.0)

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        grads = jax.grad(lambda p: jnp.sum(jnp.abs(p - goal) ** 2))(params)
        return rows.one_step(transform, params, state, grads.conj())

    params = jnp.asarray([-1.0, 10.0, 1.0], jnp.complex64)
    state: Any = transform.init(params)
    for _ in range(2000):
        params, state = step(params, state)
    assert params.dtype == state.velocity.dtype == jnp.complex64
    assert np.allclose(params, goal, atol=1e-3)


@pytest.mark.parametrize(("name", "linear"), [("inna", True), ("innaprop", False)])
def test_split_real_and_imaginary_scales_the_parts_apart(name: str, linear: bool) -> None:
    """As torch does; an algorithm that is linear in the gradient makes the same steps without."""
    params, grads = tree(0, "complex128"), gradients(dtype="complex128")
    split, _ = rows.plain(optax.contrib.split_real_and_imaginary(make(name)), params, grads)
    plain, _ = rows.plain(make(name), params, grads)
    assert (largest_difference(split, plain) <= ROUNDING) is linear


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


def test_every_public_transformation_is_tested_here() -> None:
    public = {name for name in inna_optax.__all__ if name.startswith("inna")}
    assert public == set(TRANSFORMS)
