"""The optax transformations under random orders of operations, compiled or not."""

import copy
import os
import pickle
import tempfile
from collections import Counter
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import jax.numpy as jnp  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import inna_optax  # noqa: E402
from conformance_tests.stateful.plain_model import DAMPINGS, Record, settings  # noqa: E402

OPERATIONS: Counter[str] = Counter()

dtypes = st.sampled_from(["float64", "float64", "float32", "bfloat16", "float16"])
shapes = st.sampled_from([(), (1,), (0,), (5,), (3, 4)])
seeds = st.integers(0, 2**16)
RATES = (0.0, 1e-3, 0.05, 0.1, 0.3, 0.9)


def array(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def as_float64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


class Machine(RuleBasedStateMachine):
    """A transformation with a schedule that cycles through step sizes, its state and parameters, and the records."""

    algorithm = ""
    params: dict[str, Any]
    records: dict[str, Record]
    saved: Any
    folder: Any

    @initialize(rows=st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=3), seed=seeds, data=st.data())
    def start(self, rows: list[Any], seed: int, data: Any) -> None:
        self.hyper = data.draw(st.sampled_from(DAMPINGS[self.algorithm]))
        self.rates = data.draw(st.lists(st.sampled_from(RATES), min_size=1, max_size=3))
        self.decay = data.draw(st.sampled_from([0.0, 0.1]))
        table = jnp.asarray(self.rates)
        self.transform = getattr(inna_optax, self.algorithm.lower())(
            lambda step: table[step % len(table)], weight_decay=self.decay, **self.hyper
        )
        self.params = {f"p{i}": array(shape, dtype, seed + i) for i, (shape, dtype) in enumerate(rows)}
        self.records = {name: Record(str(p.dtype), as_float64(p)) for name, p in self.params.items()}
        self.state = self.transform.init(self.params)
        self.step_number, self.saved = 0, None
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def gradients(self, seed: int) -> dict[str, Any]:
        return {name: array(p.shape, str(p.dtype), seed + i) for i, (name, p) in enumerate(self.params.items())}

    @rule(n=st.integers(1, 4), seed=seeds)
    def steps(self, n: int, seed: int) -> None:
        for k in range(n):
            OPERATIONS["step"] += 1
            grads = self.gradients(seed + 10 * k)
            updates, self.state = self.transform.update(grads, self.state, self.params)
            self.params = optax.apply_updates(self.params, updates)
            lr = self.rates[self.step_number % len(self.rates)]
            self.step_number += 1
            for name, g in grads.items():
                defaults = {"sigma": 0.999, "eps": 1e-8, **self.hyper}
                self.records[name].step(self.algorithm, as_float64(g), defaults, lr, self.decay)

    @rule(seed=seeds, how=st.sampled_from(["shape", "dtype", "structure", "state"]))
    def failing_step(self, seed: int, how: str) -> None:
        OPERATIONS["failing step"] += 1
        grads, state = self.gradients(seed), self.state
        if how == "shape":
            grads["p0"] = jnp.ones((7, 7))
        elif how == "dtype":
            grads["p0"] = jnp.ones(self.params["p0"].shape, int)
        elif how == "structure":
            grads["more"] = jnp.ones(2)
        else:
            state = tuple(state)
        with pytest.raises((ValueError, TypeError), match="Invalid "):
            self.transform.update(grads, state, self.params)

    @rule()
    def halve_parameters(self) -> None:
        OPERATIONS["write parameters"] += 1
        self.params = jax.tree.map(lambda p: p * 0.5, self.params)
        for name, record in self.records.items():
            if record.dtype in ("bfloat16", "float16"):
                record.theta, record.error = as_float64(self.params[name]) + self.compensation(name), 0.0
            else:
                record.theta = 0.5 * record.theta

    @rule()
    def halve_velocities(self) -> None:
        OPERATIONS["write velocities"] += 1
        self.state = self.state._replace(velocity=jax.tree.map(lambda v: v * 0.5, self.state.velocity))
        for record in self.records.values():
            record.v = 0.5 * record.v

    @rule(how=st.sampled_from([copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]))
    def copy_all(self, how: Any) -> None:
        OPERATIONS["copy"] += 1
        self.params, self.state = how((self.params, self.state))

    @rule()
    def save(self) -> None:
        OPERATIONS["save"] += 1
        inna_optax.save_state(os.path.join(self.folder.name, "state"), self.state, self.params)
        self.saved = self.step_number, copy.deepcopy(self.records)

    @precondition(lambda self: self.saved is not None)
    @rule(fresh=st.booleans())
    def load(self, fresh: bool) -> None:
        OPERATIONS["load"] += 1
        template = self.transform.init(self.params) if fresh else self.state
        self.state, self.params = inna_optax.load_state(os.path.join(self.folder.name, "state"), template, self.params)
        self.step_number, self.records = copy.deepcopy(self.saved)

    def compensation(self, name: str) -> Any:
        compensations = self.state.compensation or {}
        return 0.0 if compensations.get(name) is None else as_float64(compensations[name])

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        for name, record in getattr(self, "records", {}).items():
            slots = {
                slot: as_float64(getattr(self.state, slot)[name])
                for slot in ("velocity", "second_moment")
                if hasattr(self.state, slot)
            }
            record.check(as_float64(self.params[name]) + self.compensation(name), slots)
            assert int(self.state.step) == record.k == self.step_number


MACHINES = {name: type(f"{name}Machine", (Machine,), {"algorithm": name}) for name in DAMPINGS}


@pytest.mark.parametrize(
    ("name", "examples", "steps"),
    [("INNAprop", 8, 12), *(pytest.param(name, 300, 40, marks=pytest.mark.nightly) for name in MACHINES)],
)
def test_any_order_of_operations_gives_what_the_equations_say(name: str, examples: int, steps: int) -> None:
    OPERATIONS.clear()
    run_state_machine_as_test(MACHINES[name], settings=settings(examples, steps))
    print(f"{OPERATIONS.total()} operations: {dict(OPERATIONS)}")
    assert OPERATIONS["step"] > examples / 2
