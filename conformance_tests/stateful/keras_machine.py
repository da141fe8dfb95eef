"""The Keras optimizers under random orders of operations, for a process with a backend."""

import copy
import os
import tempfile
from collections import Counter
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from keras import ops

import inna_keras
from conformance_tests.stateful.plain_model import DAMPINGS, Record, settings

OPERATIONS: Counter[str] = Counter()

dtypes = st.sampled_from(["float64", "float32", "bfloat16", "float16"])
shapes = st.sampled_from([(), (1,), (5,), (3, 4)])
seeds = st.integers(0, 2**16)
rates = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.9])


def random_array(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    return ops.cast(ops.convert_to_tensor(np.random.default_rng(seed).standard_normal(shape)), dtype)


def as_float64(x: Any) -> np.ndarray:
    values: Any = ops.convert_to_numpy(ops.cast(x, "float64"))
    return np.array(values)


class Machine(RuleBasedStateMachine):
    """An optimizer, its variables as those of a model, and the plain model's record of each."""

    algorithm = ""
    records: list[Record]
    saved: Any
    folder: Any
    model: Any
    optimizer: Any

    @initialize(rows=st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=3), seed=seeds, data=st.data())
    def start(self, rows: list[Any], seed: int, data: Any) -> None:
        hyper = data.draw(st.sampled_from(DAMPINGS[self.algorithm]))
        self.decay = data.draw(st.sampled_from([None, 0.1]))
        self.optimizer = self.new_optimizer(hyper, data.draw(rates))
        variables = [
            keras.Variable(random_array(shape, dtype, seed + i), dtype=dtype, name=f"p{i}")
            for i, (shape, dtype) in enumerate(rows)
        ]
        self.optimizer.build(variables)
        self.model = SimpleNamespace(trainable_variables=variables, optimizer=self.optimizer)
        self.records = [Record(dtype, as_float64(v)) for (_, dtype), v in zip(rows, variables, strict=True)]
        self.saved = None
        self.folder = tempfile.TemporaryDirectory()

    def new_optimizer(self, hyper: dict[str, Any], lr: float) -> Any:
        return getattr(inna_keras, self.algorithm)(lr, weight_decay=self.decay, **hyper)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def gradients(self, seed: int) -> list[Any]:
        return [
            random_array(tuple(v.shape), str(v.dtype), seed + i) for i, v in enumerate(self.model.trainable_variables)
        ]

    @rule(n=st.integers(1, 4), seed=seeds)
    def steps(self, n: int, seed: int) -> None:
        for k in range(n):
            OPERATIONS["step"] += 1
            grads = self.gradients(seed + 10 * k)
            self.optimizer.apply(grads, self.model.trainable_variables)
            lr, config = float(as_float64(self.optimizer.learning_rate)), self.optimizer.get_config()
            for record, g in zip(self.records, grads, strict=True):
                record.step(self.algorithm, as_float64(g), config, lr, self.decay or 0.0)

    @rule(seed=seeds, how=st.sampled_from(["shape", "dtype", "number"]))
    def failing_step(self, seed: int, how: str) -> None:
        OPERATIONS["failing step"] += 1
        grads = self.gradients(seed)
        if how == "shape":
            grads[-1] = ops.ones((7, 7))
        elif how == "dtype":
            grads[-1] = ops.ones(grads[-1].shape, "int32")
        else:
            grads.append(ops.ones((2,)))
        with pytest.raises((ValueError, TypeError), match="Invalid "):
            self.optimizer.apply(grads, self.model.trainable_variables)

    @rule(lr=rates)
    def set_learning_rate(self, lr: float) -> None:
        OPERATIONS["set lr"] += 1
        self.optimizer.learning_rate = lr

    @rule()
    def halve_variables(self) -> None:
        OPERATIONS["write variables"] += 1
        for i, (v, record) in enumerate(zip(self.model.trainable_variables, self.records, strict=True)):
            v.assign(v * 0.5)
            if record.dtype in ("bfloat16", "float16"):
                record.theta, record.error = as_float64(v) + self.compensation(i), 0.0
            else:
                record.theta = 0.5 * record.theta

    @rule()
    def halve_velocities(self) -> None:
        OPERATIONS["write velocities"] += 1
        for slot, record in zip(self.optimizer._slots["velocity"], self.records, strict=True):
            slot.assign(slot * 0.5)
            record.v = 0.5 * record.v

    @rule()
    def reload(self) -> None:
        """By Keras' own means, into an optimizer made of the configuration."""
        OPERATIONS["load_own_variables"] += 1
        store: dict[str, Any] = {}
        self.optimizer.save_own_variables(store)
        other = type(self.optimizer).from_config(self.optimizer.get_config())
        other.build(self.model.trainable_variables)
        other.load_own_variables(store)
        self.optimizer = self.model.optimizer = other

    @rule()
    def save(self) -> None:
        OPERATIONS["save"] += 1
        inna_keras.save_state(os.path.join(self.folder.name, "state"), self.model)
        self.saved = copy.deepcopy(self.records)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        OPERATIONS["load"] += 1
        inna_keras.load_state(os.path.join(self.folder.name, "state"), self.model)
        self.records = copy.deepcopy(self.saved)

    def compensation(self, i: int) -> Any:
        variable = self.optimizer._compensations[i]
        return 0.0 if variable is None else as_float64(variable)

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        for i, record in enumerate(getattr(self, "records", [])):
            slots = {name: as_float64(variables[i]) for name, variables in self.optimizer._slots.items()}
            record.check(as_float64(self.model.trainable_variables[i]) + self.compensation(i), slots)
            assert int(as_float64(self.optimizer.iterations)) == record.k


MACHINES = {name: type(f"{name}Machine", (Machine,), {"algorithm": name}) for name in DAMPINGS}


def run(name: str, examples: int, steps: int) -> dict[str, int]:
    """Run a machine; return how often each operation was made."""
    OPERATIONS.clear()
    before = keras.config.floatx()
    keras.config.set_floatx("float64")  # that of the learning rate
    try:
        run_state_machine_as_test(MACHINES[name], settings=settings(examples, steps))
    finally:
        keras.config.set_floatx(before)
    return dict(OPERATIONS)
