"""`inna_optax`: init, update, `apply_updates`; the schedule is a callable that the transformation evaluates."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import inna_core
import inna_optax
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts.run import Fact, Snapshot, as_float64
from conformance_tests.matrix.table import BY_NAME

jax.config.update("jax_enable_x64", True)


def open_run(
    setup: Setup, params: list[np.ndarray], *, jit: bool = False, inject: bool = False, shards: int = 0
) -> "OptaxRun":
    return OptaxRun(setup, params, jit, inject, shards)


class OptaxRun:
    def __init__(self, setup: Setup, params: list[np.ndarray], jit: bool, inject: bool, shards: int) -> None:
        self.setup, self.inject, self.shards = setup, inject, shards
        factory = getattr(inna_optax, BY_NAME[setup.algorithm].optax)
        arguments = {**setup.hyper, "weight_decay": setup.weight_decay}
        if setup.published_decay:
            arguments["published_decay"] = True
        static = [name for name in arguments if name == "published_decay"]
        if inject:
            real_dtype = jnp.finfo(jnp.promote_types(setup.dtype, jnp.float32)).dtype
            self.transform = optax.inject_hyperparams(factory, static, hyperparam_dtype=real_dtype)(
                learning_rate=self._schedule(), **arguments
            )
        else:
            rate = setup.lrs[0] if len(setup.lrs) == 1 else self._schedule()
            self.transform = factory(rate, **arguments)
        self.params = [self._make(p) for p in params]
        self.state = self.transform.init(self.params)
        self._update = jax.jit(self._one_step) if jit else self._one_step
        compensated = self._inner(self.state).compensation is not None
        names = [n for n in getattr(inna_core, setup.algorithm).state_type._fields if n != "step"]
        self.names = [*names, "compensation"] if compensated else names
        self._before: tuple[Any, Any] | None = None

    def _schedule(self) -> Any:
        table = jnp.asarray(self.setup.lrs, jnp.float64)
        return lambda step: table[jnp.minimum(step, len(self.setup.lrs) - 1)]

    def _make(self, x: np.ndarray, dtype: str | None = None) -> jax.Array:
        array = jnp.asarray(x, dtype=dtype or self.setup.dtype)
        if not self.shards:
            return array
        # Split the first axis that divides evenly; replicate arrays that have none.
        mesh = jax.make_mesh((self.shards,), ("d",))
        axis = next((i for i, n in enumerate(x.shape) if n and n % self.shards == 0), None)
        spec = jax.sharding.PartitionSpec(*(() if axis is None else (*[None] * axis, "d")))
        return jax.device_put(array, jax.sharding.NamedSharding(mesh, spec))

    def _one_step(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = self.transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def _inner(self, state: Any) -> Any:
        return state.inner_state if self.inject else state

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        host_grads = [self._make(g, dtype) for g in grads]
        params, state = self._update(host_grads, self.state, self.params)
        self._before = self.params, self.state
        self.params, self.state = params, state
        return [as_float64(g) for g in host_grads]

    def read(self) -> Snapshot:
        return self._snapshot(self.params, self.state)

    def previous(self) -> Snapshot:
        assert self._before is not None
        return self._snapshot(*self._before)

    def _snapshot(self, params: Any, state: Any) -> Snapshot:
        inner = self._inner(state)
        fields = {name: [as_float64(x) for x in getattr(inner, name)] for name in self.names}
        return Snapshot([as_float64(p) for p in params], fields)

    def write(self, snapshot: Snapshot, k: int) -> None:
        self.params = [self._make(p) for p in snapshot.params]
        step = jnp.asarray(k, jnp.int32)
        fields = {
            name: [
                self._make(value, str(old.dtype))
                for value, old in zip(values, getattr(self._inner(self.state), name), strict=True)
            ]
            for name, values in snapshot.state.items()
        }
        inner = self._inner(self.state)._replace(step=step, **fields)
        if self.inject:
            # inject_hyperparams counts on its own, and so does each schedule in it
            counts = jax.tree.map(lambda _: step, self.state.hyperparams_states)
            inner = self.state._replace(count=step, hyperparams_states=counts, inner_state=inner)
        self.state = inner

    def save(self, path: str) -> None:
        with open(path, "wb") as file:
            pickle.dump(jax.tree.map(np.asarray, (self.params, self.state)), file)

    def load(self, path: str) -> None:
        with open(path, "rb") as file:
            saved = pickle.load(file)

        def restore(x: np.ndarray, like: jax.Array) -> jax.Array:
            return jax.device_put(x, like.sharding) if like.committed else jnp.asarray(x)

        self.params, self.state = jax.tree.map(restore, saved, (self.params, self.state))

    def facts(self) -> dict[str, list[Fact]]:
        inner = self._inner(self.state)
        return {
            "params": [fact(p) for p in self.params],
            **{name: [fact(x) for x in getattr(inner, name)] for name in self.names},
        }


def fact(x: jax.Array) -> Fact:
    # a jitted program may spell a sharding differently; what counts is which device holds what
    places = sorted((d.id, str(index)) for d, index in x.sharding.devices_indices_map(x.shape).items())
    return Fact(str(x.dtype), tuple(x.shape), str(places), "jax.numpy")
