"""Small tensors are flattened in a step, which is transparent to users, whatever happens between steps."""

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.events import EVENTS  # noqa: E402
from conformance_tests.torch_host.rows import COMPILES, difference, parameters, set_gradients  # noqa: E402
from inna_torch import _tensors  # noqa: E402
from inna_torch.paths import single  # noqa: E402

SHAPES = ((), (7,), (3, 4), (40, 3), (2, 3, 4, 5), (0, 5), (150, 150), (1, 9), (20, 20), (5000,))
"""All but one are small enough to share a block."""


@dataclass(frozen=True)
class Row:
    """A way to take that flattens small tensors.

    Attributes:
        optimizer: class.
        flags: of the optimizer.
        dtype: of the parameters.
        bound: how far it may be from a step of one tensor after the other, relative to the largest number.
    """

    optimizer: Any = inna_torch.INNAprop
    flags: dict[str, Any] = field(default_factory=dict)
    dtype: Any = torch.float64
    bound: float = 1e-13


COMPILED = {"compiled": True}
ROWS = {
    "kernels": Row(),
    "foreach": Row(flags={"foreach": True}),
    "single": Row(flags={"foreach": False}),
    "compiled": Row(flags=COMPILED),
    "kernel, INNA": Row(inna_torch.INNA),
    "compiled, compensated": Row(flags={**COMPILED, "kahan_sum": True}),
    "compiled, compensated, INNA": Row(inna_torch.INNA, {**COMPILED, "kahan_sum": True}),
    # what parameter and compensation hold together has 16 digits
    "compiled, bfloat16": Row(flags=COMPILED, dtype=torch.bfloat16, bound=2.0**-15),
    "bfloat16": Row(dtype=torch.bfloat16, bound=0.0),
    "bfloat16, INNA": Row(inna_torch.INNA, dtype=torch.bfloat16, bound=0.0),
    "float16, no compensation": Row(flags={"kahan_sum": False, "foreach": True}, dtype=torch.float16, bound=0.0),
    "compensated": Row(flags={"kahan_sum": True}),
    "compiled, bfloat16, INNA": Row(inna_torch.INNA, COMPILED, dtype=torch.bfloat16, bound=2.0**-15),
}
EACH = pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[COMPILES, pytest.mark.nightly] if "compiled" in x else []) for x in ROWS]
)


@pytest.fixture
def row(name: str, monkeypatch: Any) -> Row:
    monkeypatch.setattr(_tensors, "CACHE_BLOCK_NUMEL", 6000)  # more than one block
    return ROWS[name]


def update_one_by_one(update: Callable[[Any], Any], columns: Sequence[Any], **_: Any) -> None:
    """Do what `update_in_blocks` does, without flattening or cutting anything."""
    for row in zip(*columns, strict=True):
        if row[0].numel():
            update(list(row))


@pytest.fixture
def reference_step(monkeypatch: Any) -> Callable[[Any], None]:
    """A step that works on one tensor after the other."""

    def step(optimizer: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(single, "update_in_blocks", update_one_by_one)
            optimizer.step()

    return step


def reference_flags(row: Row) -> dict[str, Any]:
    return {**row.flags, "compiled": False, "foreach": False}


def with_compensation(optimizer: Any, params: list[Any]) -> list[Any]:
    """Return parameters with what their compensations hold."""
    compensations = (optimizer.state[p].get("compensation", 0.0) for p in params)
    return [p.detach().double() + c for p, c in zip(params, compensations, strict=True)]


@pytest.mark.parametrize("event", EVENTS)
@EACH
def test_steps_equal_those_of_single_tensors_after_each_event(
    row: Row, name: str, event: str, reference_step: Any
) -> None:
    """What happens before the fourth step happens to both; the event also comes back two steps later."""
    ours, plain = (parameters(row.dtype, SHAPES) for _ in range(2))
    shared: dict[str, Any] = {"lr": 0.05, "alpha": 0.4, "weight_decay": 0.2}
    a = row.optimizer(ours, **shared, **row.flags)
    b = row.optimizer(plain, **shared, **reference_flags(row))
    for k in range(8):
        for optimizer, params in ((a, ours), (b, plain)):
            set_gradients(params, k)
            if k in (3, 5):
                EVENTS[event](optimizer, params)
            optimizer.step() if optimizer is a else reference_step(b)
        # the kernel's velocities are its own until somebody reads them, which is not to happen in each step
        if name == "kernel, INNA" and k < 7:
            assert difference(ours, plain) <= row.bound, k
            continue
        want = with_compensation(b, plain)
        bound = row.bound * max(1.0, *(float(p.abs().max()) for p in want if p.numel()))
        assert difference(with_compensation(a, ours), want) <= bound, k
        for p, q in zip(ours, plain, strict=True):
            for entry, value in b.state[q].items():
                if entry != "compensation":
                    assert difference([a.state[p][entry]], [value]) <= bound, (k, entry)


def stored_bytes(optimizer: Any) -> tuple[int, int]:
    """Return the size of the state, and of the memory that it keeps alive."""
    tensors = [x for state in optimizer.state.values() for x in state.values()]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors if x.numel()}
    return sum(x.nbytes for x in tensors), sum(storages.values())


@pytest.mark.parametrize("event", EVENTS)
@EACH
def test_state_keeps_no_memory_but_its_own(row: Row, name: str, event: str) -> None:
    params = parameters(row.dtype, SHAPES)
    optimizer = row.optimizer(params, lr=0.05, **row.flags)
    for k in range(8):
        set_gradients(params, k)
        if k in (3, 5):
            EVENTS[event](optimizer, params)
        optimizer.step()
        size, kept = stored_bytes(optimizer)
        assert size == kept, k


READERS: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda o: o.state_dict(),
    "deepcopy of it": lambda o: copy.deepcopy(o.state_dict()),
    "deepcopy": lambda o: copy.deepcopy(o).state_dict(),
    "pickle": lambda o: pickle.loads(pickle.dumps(o)).state_dict(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_checkpoint_has_tensors_of_its_own(reader: str) -> None:
    """Formats that refuse shared memory take it, and one entry can be stored alone."""
    params = parameters(shapes=SHAPES)
    optimizer = inna_torch.INNAprop(params)
    for k in range(3):
        set_gradients(params, k)
        optimizer.step()
    for entry in READERS[reader](optimizer)["state"].values():
        for value in entry.values():
            assert value.untyped_storage().nbytes() == value.nbytes


@pytest.mark.parametrize("name", [x for x in ROWS if x != "kernel, INNA" and "compiled" not in x])
def test_tensors_of_the_state_stay_the_objects_that_they_are(row: Row, name: str) -> None:
    """Whoever holds them sees, and may change, what the optimizer works with; but for INNA's kernel (docs/torch.md)."""
    ours, plain = (parameters(row.dtype, SHAPES) for _ in range(2))
    a = row.optimizer(ours, lr=0.05, **row.flags)
    b = row.optimizer(plain, lr=0.05, **reference_flags(row))
    held: list[Any] = []
    for k in range(5):
        for optimizer, params in ((a, ours), (b, plain)):
            set_gradients(params, k)
            optimizer.step()
        if k == 0:
            held = [(o.state[p]["velocity"], o, p) for o, ps in ((a, ours), (b, plain)) for p in ps]
        assert all(o.state[p]["velocity"] is x for x, o, p in held)
        held[2][0].zero_()
        held[2 + len(ours)][0].zero_()
    assert difference(with_compensation(a, ours), with_compensation(b, plain)) <= 8 * row.bound


def test_states_that_processes_share_stay_shared() -> None:
    params = parameters(torch.float32, SHAPES)
    optimizer = inna_torch.INNAprop(params)
    for k in range(6):
        set_gradients(params, k)
        optimizer.step()
        if k in (0, 3):
            for state in optimizer.state.values():
                for value in state.values():
                    value.share_memory_()
        assert all(x.is_shared() for state in optimizer.state.values() for x in state.values() if x.numel())
    assert {float(state["step"]) for state in optimizer.state.values()} == {6.0}


@EACH
def test_parameters_may_share_memory(row: Row, name: str) -> None:
    """Each has its own state, and the updates add up; with decay, multi-tensor calls mix them, here as in torch."""
    found = []
    for flags in (row.flags, reference_flags(row)):
        a, b, c = parameters(row.dtype, ((4, 3), (12,), (5,)))
        b.data = a.data.view(-1)[3:9]
        optimizer = row.optimizer([a, b, c], lr=0.05, weight_decay=0.0, **flags)
        for k in range(4):
            set_gradients([a, b, c], k)
            optimizer.step()
        found.append(a.detach().clone())
    assert difference([found[0]], [found[1]]) <= 8 * row.bound


@pytest.mark.parametrize("name", ["kernels", "kernel, INNA"])
def test_a_step_size_that_changes_in_its_tensor_counts(row: Row, name: str) -> None:
    ours, plain = parameters(shapes=SHAPES), parameters(shapes=SHAPES)
    lr = torch.tensor(0.05, dtype=torch.float64)
    a, b = row.optimizer(ours, lr=lr), row.optimizer(plain, lr=0.05)
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()
        b.step()
        assert difference(ours, plain) <= 1e-13, k
        lr.mul_(0.5)
        b.param_groups[0]["lr"] *= 0.5


def test_a_copy_of_the_optimizer_is_independent() -> None:
    params = parameters(shapes=SHAPES)
    optimizer = inna_torch.INNAprop(params)
    for k in range(3):
        set_gradients(params, k)
        optimizer.step()
    others, other = copy.deepcopy((params, optimizer))
    before = {name: x.clone() for name, x in optimizer.state[params[2]].items()}
    for k in range(3):
        set_gradients(others, k)
        other.step()
    assert all(torch.equal(optimizer.state[params[2]][name], x) for name, x in before.items())
    assert float(other.state[others[2]]["step"]) == 6.0
