"""`inna_keras`: variables, `optimizer.apply`, a `LearningRateSchedule`; the backend is the process' own."""

import pickle
from typing import Any

import keras
import numpy as np
from keras import ops

import inna_core
import inna_keras
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts.run import Fact, Snapshot, as_float64

if keras.backend.backend() == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)


class Table(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, lrs: tuple[float, ...]) -> None:
        self.lrs = lrs

    def __call__(self, step: Any) -> Any:
        table = ops.convert_to_tensor(np.asarray(self.lrs), dtype="float64")
        return ops.take(table, ops.minimum(ops.cast(step, "int32"), len(self.lrs) - 1))


def open_run(setup: Setup, params: list[np.ndarray], *, jit: bool = False) -> "KerasRun":
    # the learning-rate variable has Keras' default float dtype
    keras.config.set_floatx("float64" if setup.dtype == "float64" else "float32")
    return KerasRun(setup, params, jit)


class KerasRun:
    def __init__(self, setup: Setup, params: list[np.ndarray], jit: bool) -> None:
        self.setup = setup
        rate = setup.lrs[0] if len(setup.lrs) == 1 else Table(setup.lrs)
        self.optimizer = getattr(inna_keras, setup.algorithm)(
            learning_rate=rate,
            weight_decay=setup.weight_decay or None,
            **setup.hyper,
            **({"published_decay": True} if setup.published_decay else {}),
        )
        self.params = [
            # torch refuses integer variables that are trainable before we can
            keras.Variable(np.asarray(p), dtype=setup.dtype, name=f"p{i}", trainable="float" in setup.dtype)
            for i, p in enumerate(params)
        ]
        self.optimizer.build(self.params)
        names = getattr(inna_core, setup.algorithm).state_type._fields
        self.names = [name for name in names if name != "step"]
        if any(c is not None for c in self.optimizer._compensations):
            self.names.append("compensation")
        self._apply = JITTED[keras.backend.backend()](self) if jit else self._apply_eagerly

    def _apply_eagerly(self, grads: list[Any]) -> None:
        self.optimizer.apply(grads, self.params)

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        host_grads = [ops.convert_to_tensor(np.asarray(g), dtype=dtype or self.setup.dtype) for g in grads]
        self._apply(host_grads)
        return [read(g) for g in host_grads]

    def _slots(self, name: str) -> list[Any]:
        return self.optimizer._compensations if name == "compensation" else self.optimizer._slots[name]

    def read(self) -> Snapshot:
        return Snapshot([read(p) for p in self.params], {n: [read(x) for x in self._slots(n)] for n in self.names})

    def write(self, snapshot: Snapshot, k: int) -> None:
        self.optimizer.iterations.assign(k)
        for variable, value in zip(self.params, snapshot.params, strict=True):
            variable.assign(value)
        for name, values in snapshot.state.items():
            for variable, value in zip(self._slots(name), values, strict=True):
                variable.assign(value)

    def save(self, path: str) -> None:
        store: dict[str, np.ndarray] = {}
        self.optimizer.save_own_variables(store)
        with open(path, "wb") as file:
            pickle.dump(([ops.convert_to_numpy(p) for p in self.params], store), file)

    def load(self, path: str) -> None:
        with open(path, "rb") as file:
            params, store = pickle.load(file)
        for variable, value in zip(self.params, params, strict=True):
            variable.assign(value)
        self.optimizer.load_own_variables(store)

    def facts(self) -> dict[str, list[Fact]]:
        return {
            "params": [fact(p) for p in self.params],
            **{name: [fact(x) for x in self._slots(name)] for name in self.names},
        }

    def previous(self) -> Snapshot:
        raise NotImplementedError("a Keras optimizer assigns to its variables")


def tensorflow_jit(run: KerasRun) -> Any:
    import tensorflow as tf

    return tf.function(run._apply_eagerly, jit_compile=True)


def jax_jit(run: KerasRun) -> Any:
    import jax

    optimizer = run.optimizer
    stateless = jax.jit(optimizer.stateless_apply)

    def apply(grads: list[Any]) -> None:
        params, state = stateless([v.value for v in optimizer.variables], grads, [p.value for p in run.params])
        for variable, value in zip([*run.params, *optimizer.variables], [*params, *state], strict=True):
            variable.assign(value)

    return apply


JITTED = {"tensorflow": tensorflow_jit, "jax": jax_jit}


def read(x: Any) -> np.ndarray:
    # cast first: on TensorFlow, convert_to_numpy fails for bfloat16
    return as_float64(ops.convert_to_numpy(ops.cast(x, "float64")))


def fact(x: Any) -> Fact:
    return Fact(keras.backend.standardize_dtype(x.dtype), tuple(x.shape), "", keras.backend.backend())
