"""Checks that need several devices, for a process that was given them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from conformance_tests.optax_host import scenarios as rows

jax.config.update("jax_enable_x64", True)

SPECS = {"kernel": PartitionSpec("x", "y"), "bias": PartitionSpec("y"), "more": [PartitionSpec(), None]}


def mesh(axis_type: str = "Auto") -> Mesh:
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType[axis_type],) * 2)


def sharded(tree: Any, axis_type: str = "Auto") -> Any:
    grid = mesh(axis_type)
    return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(grid, spec)), tree, SPECS)


def placement(x: jax.Array) -> list[tuple[int, str]]:
    return sorted((d.id, str(index)) for d, index in x.sharding.devices_indices_map(x.shape).items())


def named_sharding(name: str, jit: bool, axis_type: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return how far the sharded trajectory is from that of one device, and whether state lies where parameters lie."""
    params, grads = rows.tree(0), rows.gradients()
    transform = rows.make(name, **options)
    want, _ = rows.plain(transform, params, grads)
    run = rows.jitted if jit else rows.plain
    params, grads = sharded(params, axis_type), [sharded(g, axis_type) for g in grads]
    got, state = run(transform, params, grads)
    fresh = transform.init(params)
    like = [placement(p) for p in jax.tree.leaves(params)]
    fields = [field for field in state._fields if field != "step" and getattr(state, field) is not None]
    return {
        "devices": len(jax.devices()),
        "fields": fields,
        "difference": rows.largest_difference(jax.device_get(got), jax.device_get(want)),
        "fresh": all([placement(x) for x in jax.tree.leaves(getattr(fresh, field))] == like for field in fields),
        "later": all([placement(x) for x in jax.tree.leaves(getattr(state, field))] == like for field in fields),
        "params": [placement(p) for p in jax.tree.leaves(got)] == like,
    }


def shard_map(name: str) -> dict[str, Any]:
    """Run each device's block on its own, the state made inside; return the distance from one device's trajectory."""
    params, grads = rows.tree(0), rows.gradients()
    want, want_state = rows.plain(rows.make(name), params, grads)
    transform, grid = rows.make(name), mesh()
    specs = {"kernel": SPECS["kernel"], "bias": SPECS["bias"], "more": [SPECS["more"][0], None]}
    state_specs = jax.tree.map(lambda _: PartitionSpec(), jax.eval_shape(transform.init, params))
    fields = [field for field in state_specs._fields if field not in ("step", "compensation")]
    state_specs = state_specs._replace(**dict.fromkeys(fields, specs))
    init = jax.jit(jax.shard_map(transform.init, mesh=grid, in_specs=(specs,), out_specs=state_specs))
    step = jax.jit(
        jax.shard_map(
            lambda *args: rows.one_step(transform, *args),
            mesh=grid,
            in_specs=(specs, state_specs, specs),
            out_specs=(specs, state_specs),
        )
    )
    got = sharded(params)
    state = init(got)
    for g in grads:
        got, state = step(got, state, sharded(g))
    return {
        "devices": len(jax.devices()),
        "difference": rows.largest_difference(jax.device_get((got, state)), jax.device_get((want, want_state))),
    }


def data_parallel(name: str) -> float:
    """Return the distance between training on a batch in 8 parts and on the whole batch."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 8)))
    transform, params = rows.make(name), {"w": jnp.ones((8, 4))}

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean(jnp.tanh(x @ p["w"]) ** 2))(params)
        return rows.one_step(transform, params, state, grads)

    results = []
    grid = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    for spec in (PartitionSpec(), PartitionSpec("batch")):
        batch = jax.device_put(x, NamedSharding(grid, spec))
        state, p = jax.device_put((transform.init(params), params), NamedSharding(grid, PartitionSpec()))
        for _ in range(4):
            p, state = step(p, state, batch)
        results.append(p)
    return rows.largest_difference(*results)
