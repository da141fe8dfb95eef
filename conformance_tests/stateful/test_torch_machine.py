"""The torch optimizers under random orders of everything that users do with them.

After each operation the parameters are compared with the plain model's; states only where an operation reads them,
since a read changes what a fast path does next.
"""

import copy
import io
import os
import pickle
import tempfile
from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import inna_torch  # noqa: E402
from conformance_tests.stateful.plain_model import DAMPINGS, Record, settings  # noqa: E402
from conformance_tests.stateful.torch_inputs import (  # noqa: E402
    ALL_DAMPINGS,
    as_float64,
    decays,
    flags,
    layouts,
    parameter,
    rates,
    seeds,
    tensor,
)

OPERATIONS: Counter[str] = Counter()
"""How often each operation was made, for those who report it."""


class Machine(RuleBasedStateMachine):
    """One optimizer, its parameters, and the plain model's record of each."""

    algorithm = ""
    params: list[Any]
    records: list[Record]
    saved: Any
    optimizer: Any
    folder: Any

    @initialize(params=st.lists(parameter, min_size=1, max_size=4), seed=seeds, data=st.data())
    def start(self, params: list[Any], seed: int, data: Any) -> None:
        self.params, self.records, self.saved = [], [], None
        own = self.new_parameters(params, seed)
        hyper, lr, decay, how = data.draw(self.group_strategy())
        kind = getattr(inna_torch, self.algorithm)
        self.optimizer = kind(own, lr=lr, weight_decay=decay, **hyper, **how)
        self.folder = tempfile.TemporaryDirectory()

    def group_strategy(self) -> Any:
        return st.tuples(st.sampled_from(DAMPINGS[self.algorithm]), rates, decays, flags)

    def new_parameters(self, rows: list[Any], seed: int) -> list[Any]:
        own = []
        for i, (shape, dtype, layout) in enumerate(rows):
            p = torch.nn.Parameter(tensor(shape, dtype, layout, seed + i))
            own.append(p)
            self.params.append(p)
            self.records.append(Record(dtype, as_float64(p)))
        return own

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            try:
                self.check_states()
            finally:
                self.folder.cleanup()

    @property
    def groups(self) -> list[Any]:
        return self.optimizer.param_groups

    def named(self) -> list[tuple[str, Any]]:
        return [(f"p{i}", p) for i, p in enumerate(self.params)]

    def group_of(self, p: Any) -> Any:
        return next(group for group in self.groups if any(q is p for q in group["params"]))

    # Steps

    @rule(n=st.integers(1, 4), seed=seeds, without=st.sets(st.integers(0, 5), max_size=3), layout=layouts)
    def steps(self, n: int, seed: int, without: set[int], layout: str) -> None:
        for k in range(n):
            self.step(seed + 10 * k, without, layout)

    @rule(seed=seeds)
    def step_of_all(self, seed: int) -> None:
        self.step(seed, set(), "dense")

    def step(self, seed: int, without: set[int], layout: str) -> None:
        OPERATIONS["step"] += 1
        gradients = self.set_gradients(seed, without, layout)
        self.optimizer.step()
        for (p, record), g in zip(zip(self.params, self.records, strict=True), gradients, strict=True):
            if g is not None:
                group = self.group_of(p)
                record.step(self.algorithm, g, group, group["lr"], group["weight_decay"])

    def set_gradients(self, seed: int, without: set[int], layout: str) -> list[Any]:
        gradients: list[Any] = []
        for i, p in enumerate(self.params):
            p.grad = None
            if i not in without:
                dtype = str(p.dtype).removeprefix("torch.")
                p.grad = tensor(tuple(p.shape), dtype, layout, seed + i)
            gradients.append(None if p.grad is None else as_float64(p.grad))
        return gradients

    @rule(seed=seeds, how=st.sampled_from(["lr", "sparse", "state", "flag"]))
    def failing_step(self, seed: int, how: str) -> None:
        OPERATIONS["failing step"] += 1
        self.set_gradients(seed, set(), "dense")
        group, p = self.groups[-1], self.groups[-1]["params"][-1]
        undo: Any = lambda: None  # noqa: E731
        if how == "lr":
            lr, group["lr"] = group["lr"], float("nan")
            undo = lambda: group.update(lr=lr)  # noqa: E731
        elif how == "flag":
            group["differentiable"], foreach = "yes", group["foreach"]
            undo = lambda: group.update(differentiable=False, foreach=foreach)  # noqa: E731
        elif how == "sparse":
            if not p.ndim or not p.numel():
                return
            p.grad = torch.ones_like(p).to_sparse()
        else:
            state = self.optimizer.state[p]
            if "velocity" not in state:
                return
            velocity = state["velocity"]
            state["velocity"] = torch.zeros(77, dtype=velocity.dtype)
            undo = lambda: self.optimizer.state[p].update(velocity=velocity)  # noqa: E731
        before = [x.detach().clone() for x in self.params]
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            self.optimizer.step()
        undo()
        assert all(torch.equal(x, y) for x, y in zip(self.params, before, strict=True))

    # Settings

    @rule(lr=rates, decay=decays, which=st.integers(0, 5))
    def set_rates(self, lr: float, decay: float, which: int) -> None:
        OPERATIONS["set lr"] += 1
        self.groups[which % len(self.groups)].update(lr=lr, weight_decay=decay)

    @rule(how=flags, which=st.integers(0, 5))
    def set_path(self, how: dict[str, Any], which: int) -> None:
        OPERATIONS["set path"] += 1
        self.groups[which % len(self.groups)].update(how)

    @rule(data=st.data(), which=st.integers(0, 5))
    def set_dampings(self, data: Any, which: int) -> None:
        OPERATIONS["set dampings"] += 1
        hyper = data.draw(st.sampled_from(DAMPINGS[self.algorithm]))
        self.groups[which % len(self.groups)].update({**ALL_DAMPINGS, **hyper})

    @precondition(lambda self: len(self.params) < 6 and self.saved is None)
    @rule(row=parameter, seed=seeds, data=st.data())
    def add_group(self, row: Any, seed: int, data: Any) -> None:
        OPERATIONS["add group"] += 1
        hyper, lr, decay, how = data.draw(self.group_strategy())
        own = self.new_parameters([row], seed)
        self.optimizer.add_param_group({"params": own, "lr": lr, "weight_decay": decay, **hyper, **how})

    # States

    @rule()
    def check_states(self) -> None:
        OPERATIONS["read states"] += 1
        for p, record in zip(self.params, self.records, strict=True):
            state = self.optimizer.state.get(p, {})
            arrays = {name: as_float64(x) for name, x in state.items()}
            if arrays:
                record.check(as_float64(p) + self.compensation(p), arrays)
                assert record.k == arrays.get("step", record.k)

    @rule(which=st.integers(0, 5), how=st.sampled_from(["in place", "replaced", "plain dict"]))
    def write_velocity(self, which: int, how: str) -> None:
        OPERATIONS["write velocity"] += 1
        i = which % len(self.params)
        p, record = self.params[i], self.records[i]
        state = self.optimizer.state[p]
        if "velocity" not in state:
            return
        if how == "in place":
            state["velocity"].mul_(0.5)
        elif how == "replaced":
            state["velocity"] = state["velocity"] * 0.5
        else:
            self.optimizer.state[p] = {**state, "velocity": state["velocity"] * 0.5}
        record.v = 0.5 * record.v

    @rule(which=st.integers(0, 5))
    def write_parameter(self, which: int) -> None:
        """As a constraint or an average does."""
        OPERATIONS["write parameter"] += 1
        p, record = self.params[which % len(self.params)], self.records[which % len(self.params)]
        with torch.no_grad():
            p.mul_(0.5)
        if record.dtype in ("bfloat16", "float16"):  # halving may round a subnormal number
            record.theta, record.error = as_float64(p) + self.compensation(p), 0.0
        else:
            record.theta = 0.5 * record.theta

    # Saving and loading

    @rule(file=st.booleans())
    def reload(self, file: bool) -> None:
        """Save and load by torch's own means."""
        OPERATIONS["state_dict"] += 1
        state = self.optimizer.state_dict()
        if file:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
        self.optimizer.load_state_dict(state)

    @rule(how=st.sampled_from(["deepcopy", "pickle"]))
    def copy_all(self, how: str) -> None:
        """Go on with a copy; the saved file, if any, is still that of these parameters."""
        OPERATIONS[how] += 1
        pair = self.params, self.optimizer
        if how == "deepcopy":
            self.params, self.optimizer = copy.deepcopy(pair)
        else:
            self.params, self.optimizer = pickle.loads(pickle.dumps(pair))

    @rule()
    def save(self) -> None:
        OPERATIONS["save"] += 1
        inna_torch.save_state(os.path.join(self.folder.name, "state"), self.optimizer, self.named(), step=None)
        self.saved = copy.deepcopy(self.records)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        OPERATIONS["load"] += 1
        path = os.path.join(self.folder.name, "state")
        inna_torch.load_state(path, self.optimizer, self.named(), hyperparameters="own")
        self.records = copy.deepcopy(self.saved)

    @precondition(lambda self: self.saved is not None)
    @rule(at=st.integers(0, 10**6), seed=st.integers(1, 255))
    def load_a_damaged_file(self, at: int, seed: int) -> None:
        OPERATIONS["load of a damaged file"] += 1
        path, damaged = (os.path.join(self.folder.name, name) for name in ("state", "damaged"))
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[at % len(data)] ^= seed
        with open(damaged, "wb") as file:
            file.write(data)
        with pytest.raises(ValueError, match="Invalid path"):
            inna_torch.load_state(damaged, self.optimizer, self.named(), hyperparameters="own")

    @invariant()
    def parameters_are_those_of_the_model(self) -> None:
        for p, record in zip(getattr(self, "params", []), getattr(self, "records", []), strict=True):
            record.check(as_float64(p) + self.compensation(p), None)

    def compensation(self, p: Any) -> Any:
        """Return a parameter's compensation, without a look at its velocity."""
        state = self.optimizer.state.get(p, {})
        return as_float64(state["compensation"]) if "compensation" in state else 0.0


MACHINES = {name: type(f"{name}Machine", (Machine,), {"algorithm": name}) for name in DAMPINGS}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("examples", "steps"), [(30, 20), pytest.param(1000, 50, marks=pytest.mark.nightly)])
def test_any_order_of_operations_gives_what_the_equations_say(name: str, examples: int, steps: int) -> None:
    OPERATIONS.clear()
    run_state_machine_as_test(MACHINES[name], settings=settings(examples, steps))
    print(f"{OPERATIONS.total()} operations: {dict(OPERATIONS)}")
    assert OPERATIONS["step"] > examples / 2
