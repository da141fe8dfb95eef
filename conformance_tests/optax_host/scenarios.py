"""Ways of running an optax transformation: each must make the steps of a plain loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import inna_optax
from conformance_tests.distances import largest
from conformance_tests.matrix.table import ALGORITHMS

Params = Any
Run = Callable[[optax.GradientTransformationExtraArgs, Params, list[Params]], tuple[Params, Any]]
"""From a transformation, initial parameters and one gradient a step to the parameters and the state behind them."""

N_STEPS = 4

TRANSFORMS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    algorithm.optax: getattr(inna_optax, algorithm.optax) for algorithm in ALGORITHMS
}

HYPER: dict[str, dict[str, float]] = {
    algorithm.optax: {"learning_rate": algorithm.trial.lrs[0], **algorithm.trial.hyper, "weight_decay": 0.1}
    for algorithm in ALGORITHMS
}


def make(name: str, **changed: Any) -> optax.GradientTransformationExtraArgs:
    return TRANSFORMS[name](**{**HYPER[name], **changed})


def tree(seed: int, dtype: Any = "float64") -> Params:
    """Return a pytree with a matrix, a vector, a scalar in a list, and None."""
    rng = np.random.default_rng(seed)

    # float32 numbers, since MultiSteps averages gradients in float32
    def leaf(*shape: int) -> jax.Array:
        x = rng.standard_normal(shape).astype(np.float32)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            x = x + 1j * rng.standard_normal(shape).astype(np.float32)
        return jnp.asarray(x, dtype)

    return {"kernel": leaf(8, 16), "bias": leaf(16), "more": [leaf(), None]}


def gradients(n: int = N_STEPS, dtype: Any = "float64") -> list[Params]:
    return [tree(100 + k, dtype) for k in range(n)]


def one_step(transform: Any, params: Params, state: Any, grads: Params) -> tuple[Params, Any]:
    updates, state = transform.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def plain(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    state = transform.init(params)
    for g in grads:
        params, state = one_step(transform, params, state, g)
    return params, state


def jitted(transform: Any, params: Params, grads: list[Params], **options: Any) -> tuple[Params, Any]:
    step = jax.jit(lambda params, state, g: one_step(transform, params, state, g), **options)
    # donation takes the arrays away: these are ours
    params, state = jax.tree.map(jnp.copy, params), transform.init(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


def donated(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    return jitted(transform, params, grads, donate_argnums=(0, 1))


def stacked(trees: list[Params]) -> Params:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def scanned(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    def body(carry: Any, g: Params) -> tuple[Any, None]:
        params, state = carry
        return one_step(transform, params, state, g), None

    return jax.jit(lambda params, grads: jax.lax.scan(body, (params, transform.init(params)), grads)[0])(
        params, stacked(grads)
    )


def vmapped(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    both = stacked([params, jax.tree.map(lambda p: 3 * p, params)])
    state = jax.vmap(transform.init)(both)
    for g in grads:
        batch = stacked([g, jax.tree.map(jnp.negative, g)])
        both, state = jax.vmap(lambda *args: one_step(transform, *args))(both, state, batch)
    return jax.tree.map(lambda x: x[0], (both, state))


def conditional(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    @jax.jit
    def step(wanted: Any, params: Params, state: Any, g: Params) -> tuple[Params, Any]:
        skip = lambda params, state, g: (params, state)  # noqa: E731
        return jax.lax.cond(wanted, lambda *args: one_step(transform, *args), skip, params, state, g)

    state = transform.init(params)
    for g in grads:
        params, state = step(True, params, state, g)
        params, state = step(False, params, state, g)
    return params, state


def chained(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    chain = optax.chain(optax.clip_by_global_norm(1e6), transform, optax.identity())
    params, state = plain(chain, params, grads)
    return params, state[1]


def partitioned(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    labels = jax.tree.map(lambda _: "ours", params)
    both = optax.partition({"ours": transform, "frozen": optax.set_to_zero()}, labels)
    params, state = plain(both, params, grads)
    return params, state.inner_states["ours"].inner_state


def accumulated(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    params, state = plain(optax.MultiSteps(transform, 2), params, [g for g in grads for _ in range(2)])
    return params, state.inner_opt_state


def if_finite(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    broken = jax.tree.map(lambda g: g * jnp.nan, grads[0])
    params, state = plain(optax.apply_if_finite(transform, 5), params, [g for one in grads for g in (broken, one)])
    return params, state.inner_state


def with_extra_arguments(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    state = transform.init(params)
    for g in grads:
        updates, state = transform.update(g, state, params, value=1.0, grad=g, value_fn=lambda p: 0.0, anything="else")
        params = optax.apply_updates(params, updates)
    return params, state


def accumulated_in_a_scan(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    params, state = scanned(optax.MultiSteps(transform, 2), params, [g for g in grads for _ in range(2)])
    return params, state.inner_opt_state


def rematerialised(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    step = jax.checkpoint(lambda params, state, g: one_step(transform, params, state, g))
    state = transform.init(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


def flattened(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    """Run on all parameters as one vector, and give the state back in the shapes of the parameters."""
    params, state = plain(optax.flatten(transform), params, grads)
    sizes = [p.size for p in jax.tree.leaves(params)]

    def shaped(vector: jax.Array) -> Params:
        parts = jnp.split(vector, np.cumsum(sizes)[:-1])
        leaves, treedef = jax.tree.flatten(params)
        return treedef.unflatten([part.reshape(p.shape) for part, p in zip(parts, leaves, strict=True)])

    fields = [field for field in state._fields if field != "step" and getattr(state, field) is not None]
    return params, state._replace(**{field: shaped(getattr(state, field)) for field in fields})


def looking_ahead(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    """Run the fast half of `optax.lookahead`, which is the transformation itself until they synchronise."""
    both, state = plain(optax.lookahead(transform, 100, 0.5), optax.LookaheadParams.init_synced(params), grads)
    return both.fast, state.fast_state


def every_second_time(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    wrapped = optax.conditionally_mask(transform, should_transform_fn=lambda step, **_: jnp.mod(step, 2) == 0)
    params, state = plain(wrapped, params, [g for one in grads for g in (one, one)])
    return params, state.inner_state


def on_a_mesh_of_one(transform: Any, params: Params, grads: list[Params]) -> tuple[Params, Any]:
    """Run on one device with explicit sharding, where every operation must say how its result is laid out."""
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    place = lambda tree: jax.device_put(tree, jax.NamedSharding(mesh, jax.P()))  # noqa: E731
    with jax.set_mesh(mesh):
        return jitted(transform, place(params), [place(g) for g in grads])


RUNS: dict[str, Run] = {
    "jit": jitted,
    "jit, donated": donated,
    "scan": scanned,
    "vmap": vmapped,
    "cond": conditional,
    "chain": chained,
    "partition": partitioned,
    "MultiSteps": accumulated,
    "apply_if_finite": if_finite,
    "extra arguments": with_extra_arguments,
    "MultiSteps, scan": accumulated_in_a_scan,
    "checkpoint": rematerialised,
    "flatten": flattened,
    "lookahead": looking_ahead,
    "conditionally_mask": every_second_time,
    "explicit sharding": on_a_mesh_of_one,
}


def largest_difference(a: Params, b: Params) -> float:
    """Return the largest relative difference of two pytrees of one structure, dtype and shape."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
    double = lambda x: np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)  # noqa: E731
    return largest(
        float(np.max(np.abs(double(x) - double(y))) / max(1.0, np.max(np.abs(double(y)))))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
