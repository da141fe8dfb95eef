"""One state for all paths: what is read from it, written to it, saved and loaded."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.matrix.hosts import no_compiler  # noqa: E402
from conformance_tests.torch_host.rows import (  # noqa: E402
    OPTIMIZERS,
    PATHS,
    ROWS,
    SHAPES,
    counted_calls,
    difference,
    parameters,
    set_gradients,
)
from inna_core import INNA as CORE_INNA  # noqa: E402

SCHEDULE = [0.02, 0.05, 0.099, 0.1, 0.12, 0.19, 0.3, 0.5, 0.19, 0.1, 0.05, 1e-3, 1e-6, 0.0, 0.03, 0.03]
"""For beta = 0.1: up to it, exactly there, above, beyond what the kernel can do, and back."""


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_schedule_across_beta_equals_the_core(alpha: float, dtype: Any) -> None:
    params = parameters(dtype)
    optimizer = inna_torch.INNA(params, alpha=alpha, beta=0.1)
    core = CORE_INNA(alpha, 0.1)
    exact = [p.detach().to(torch.float64, copy=True) for p in params]
    states = [core.init(p) for p in exact]
    for k, lr in enumerate(SCHEDULE):
        set_gradients(params, k)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        for i, p in enumerate(params):
            delta, states[i] = core.update(p.grad.to(torch.float64), states[i], exact[i], lr)
            exact[i] = exact[i] + delta
    bound = 1e3 * torch.finfo(dtype).eps
    assert difference(params, exact) < bound
    assert difference([optimizer.state[p]["velocity"] for p in params], [s.velocity for s in states]) < bound


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_checkpoints_move_between_all_paths(optimizer: Any) -> None:
    flags = [flags for flags in PATHS.values() if "compiled" not in flags or not no_compiler()] * 2
    moving, staying = parameters(torch.float32), parameters(torch.float32)
    plain = optimizer(staying, lr=0.05, foreach=False)
    saved = None
    for k, chosen in enumerate(flags):
        current = optimizer(moving, lr=0.05, **chosen)
        if saved is not None:
            current.load_state_dict({**saved, "param_groups": current.state_dict()["param_groups"]})
        for j in range(3):
            set_gradients(moving, 10 * k + j)
            set_gradients(staying, 10 * k + j)
            current.step()
            plain.step()
        saved = copy.deepcopy(current.state_dict())
        assert difference(moving, staying) < 1e-5
        assert [type(state) for state in saved["state"].values()] == [dict] * len(SHAPES)
        for theirs, p in zip(saved["state"].values(), staying, strict=True):
            assert set(theirs) == set(plain.state[p])
            assert difference([theirs["velocity"]], [plain.state[p]["velocity"]]) < 1e-5


READERS: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda optimizer, p: optimizer.state[p]["velocity"],
    "get": lambda optimizer, p: optimizer.state[p].get("velocity"),
    "items": lambda optimizer, p: dict(optimizer.state[p].items())["velocity"],
    "values": lambda optimizer, p: next(iter(optimizer.state[p].values())),
    "dict": lambda optimizer, p: dict(optimizer.state[p])["velocity"],
    "unpacked": lambda optimizer, p: {**optimizer.state[p]}["velocity"],
    "copy": lambda optimizer, p: copy.copy(optimizer.state[p])["velocity"],
    "copied": lambda optimizer, p: optimizer.state[p].copy()["velocity"],
    "deepcopy": lambda optimizer, p: copy.deepcopy(optimizer.state[p])["velocity"],
    "pickle": lambda optimizer, p: pickle.loads(pickle.dumps(optimizer.state[p]))["velocity"],
    "state_dict": lambda optimizer, p: optimizer.state_dict()["state"][2]["velocity"],
    "pickled optimizer": lambda optimizer, p: list(pickle.loads(pickle.dumps(optimizer)).state.values())[2]["velocity"],
}


@pytest.mark.parametrize("reader", READERS)
def test_state_reads_return_unscaled_velocity(reader: str) -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    held = before = None
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        with counted_calls() as kernel:
            a.step()
        # one call for what has been read since, one for the rest
        assert sum(len(call.args[0]) for call in kernel.call_args_list) == len(ours)
        b.step()
        if held is not None and before is not None:  # what was read before the step still is what it was
            assert torch.equal(held, before)
        held = READERS[reader](a, ours[2])
        before = held.clone()
        assert difference([held], [b.state[plain[2]]["velocity"]]) < 1e-14
    assert difference(ours, plain) < 1e-14


def test_velocity_zeroed_in_place_is_used_by_the_next_step() -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()
        b.step()
        for optimizer in (a, b):
            for state in optimizer.state.values():
                state["velocity"].zero_()
    assert difference(ours, plain) < 1e-14


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_the_state_is_one_buffer_for_each_moment(optimizer: Any, flags: dict[str, Any]) -> None:
    for dtype, extra in ((torch.float32, 0), (torch.bfloat16, 1)):
        params = parameters(dtype)
        instance = optimizer(params, lr=0.05, **flags)
        set_gradients(params, 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            instance.step()
        buffers = [name for name, x in instance.state[params[2]].items() if x.shape == params[2].shape]
        assert len(buffers) == (1 if optimizer is inna_torch.INNA else 2) + extra


WRITERS: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda state, v: state.__setitem__("velocity", v),
    "update": lambda state, v: state.update(velocity=v),
    "del": lambda state, v: (state.__delitem__("velocity"), state.setdefault("velocity", v)),
    "pop": lambda state, v: (state.pop("velocity"), state.update({"velocity": v})),
    "popitem": lambda state, v: (state.popitem(), state.update(velocity=v)),
    "clear": lambda state, v: (state.clear(), state.update(velocity=v)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_written_velocity_is_used_by_the_next_step(writer: str) -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    for k in range(4):
        if k == 2:
            WRITERS[writer](a.state[ours[2]], torch.ones_like(ours[2]))
            b.state[plain[2]]["velocity"] = torch.ones_like(plain[2])
        for params, optimizer in ((ours, a), (plain, b)):
            set_gradients(params, k)
            optimizer.step()
        assert difference(ours, plain) < 1e-13


@pytest.mark.parametrize("layout", ["channels_last", "beside another dtype"])
def test_kernel_updates_the_velocity_in_the_same_memory(layout: str) -> None:
    params = parameters(torch.float32, ((2, 3, 4, 4), (5,)))
    if layout == "channels_last":
        params[0].data = params[0].data.contiguous(memory_format=torch.channels_last)
    else:
        params[1].data = params[1].data.double()
    optimizer = inna_torch.INNA(params, lr=0.05)
    memory = set()
    for _ in range(4):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        memory.add(optimizer.state[params[0]].entries["velocity"].data_ptr())
    assert len(memory) == 1
