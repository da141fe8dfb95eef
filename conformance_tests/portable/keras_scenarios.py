"""What users of Keras do with portable states, for a process with a backend; each raises where something is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import inna_keras
from inna_core import portable

OPTIMIZERS = {"INNA": inna_keras.INNA, "INNAprop": inna_keras.INNAprop}


def model_of(optimizer: Any, dtype: str = "float32") -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, name="one", dtype=dtype), keras.layers.Dense(2, name="two", dtype=dtype)]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile(optimizer=optimizer, loss="mse")
    return model


def steps(model: Any, n: int, start: int = 0) -> None:
    for k in range(start, start + n):
        rng = np.random.default_rng(k)
        variables = model.trainable_variables
        grads = [ops.cast(ops.convert_to_tensor(rng.standard_normal(v.shape)), v.dtype) for v in variables]
        apply(model.optimizer, grads, variables)


def apply(optimizer: Any, grads: list[Any], variables: list[Any]) -> None:
    """Make a step; on JAX without side effects, since Keras' conditions there allow none."""
    if keras.backend.backend() != "jax":
        return optimizer.apply(grads, variables)
    if not optimizer.built:
        optimizer.build(variables)
    state = [v.value for v in optimizer.variables]
    values, state = optimizer.stateless_apply(state, grads, [v.value for v in variables])
    for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
        variable.assign(value)
    return None


def snapshot(model: Any) -> list[np.ndarray]:
    variables = [*model.trainable_variables, *model.optimizer.variables]
    return [np.array(ops.convert_to_numpy(ops.cast(v, "float64"))) for v in variables]


def assert_equal(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)


def a_run_goes_on(name: str, dtype: str, path: str) -> None:
    model = model_of(OPTIMIZERS[name](0.01), dtype)
    steps(model, 2)
    inna_keras.save_state(path, model)
    other = model_of(OPTIMIZERS[name](0.01), dtype)
    inna_keras.load_state(path, other)
    assert_equal(snapshot(other), snapshot(model))
    for m in (model, other):
        steps(m, 1, start=2)
    assert_equal(snapshot(other), snapshot(model))


def damaged(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))


def rewritten(**changes: Any) -> Callable[[str], None]:
    return lambda path: portable.save(path, replace(portable.load(path), **changes))


SPOILERS: dict[str, Callable[[str], None]] = {
    "damaged": damaged,
    "another algorithm": rewritten(algorithm="INNA"),
    "another framework": rewritten(framework="torch"),
    "no parameters": rewritten(parameters={}),
    "no step": rewritten(step=None),
    "steps that differ": rewritten(steps={"net/one/kernel": 1}),
}


def a_load_that_fails_changes_nothing(path: str) -> None:
    for spoil in SPOILERS.values():
        model = model_of(inna_keras.INNAprop(0.01))
        steps(model, 2)
        inna_keras.save_state(path, model)
        steps(model, 1)
        before = snapshot(model)
        spoil(path)
        with pytest.raises(ValueError, match="Invalid "):
            inna_keras.load_state(path, model)
        assert_equal(snapshot(model), before)


def gradients_in_parts(path: str) -> None:
    """A state is saved between steps, and loaded there; schedules count what the optimizer has seen."""
    model = model_of(inna_keras.INNAprop(0.01, gradient_accumulation_steps=3))
    steps(model, 4)
    with pytest.raises(ValueError, match="1 of 3 gradients accumulated"):
        inna_keras.save_state(path, model)
    steps(model, 2, start=4)
    inna_keras.save_state(path, model)
    assert portable.load(path).step == 2
    before = snapshot(model)
    steps(model, 1, start=6)
    inna_keras.load_state(path, model)
    assert_equal(snapshot(model), before)


def optimizers_of_others(path: str) -> None:
    for optimizer, kind in ((keras.optimizers.Adam(), TypeError), (inna_keras.INNA(use_ema=True), ValueError)):
        with pytest.raises(kind, match="Invalid model: "):
            inna_keras.save_state(path, model_of(optimizer))
    model = model_of(keras.optimizers.LossScaleOptimizer(inna_keras.INNA(0.1)))
    steps(model, 2)
    inna_keras.save_state(path, model)
    assert portable.load(path).step == 2


def non_finite_gradients(name: str) -> tuple[bool, bool]:
    """Return whether parameters stay finite after a gradient of NaN: plainly, and under loss scaling."""
    finite = []
    for wrap in (lambda x: x, keras.optimizers.LossScaleOptimizer):
        model = model_of(wrap(OPTIMIZERS[name](0.01)))
        steps(model, 1)
        variables = model.trainable_variables
        apply(model.optimizer, [ops.full(v.shape, float("nan")) for v in variables], variables)
        steps(model, 1, start=1)
        finite.append(all(np.isfinite(x).all() for x in snapshot(model)))
    return finite[0], finite[1]
