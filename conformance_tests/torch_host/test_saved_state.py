"""What is kept, saved and loaded between steps: inference mode, dicts taken early, counters, hooks, pytrees."""

import copy
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils import _pytree  # noqa: E402

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import (  # noqa: E402
    OPTIMIZERS,
    ROWS,
    counted_calls,
    difference,
    parameters,
    set_gradients,
)

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def stepped(optimizer: Any, dtype: Any = None, steps: int = 2, **flags: Any) -> tuple[list[Any], Any]:
    params = parameters(dtype)
    instance = optimizer(params, lr=0.05, **flags)
    for k in range(steps):
        set_gradients(params, k)
        instance.step()
    return params, instance


# Inference mode

ACTIONS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: o.step(),
    "state_dict": lambda o: o.state_dict(),
    "step, state_dict": lambda o: (o.step(), o.state_dict()),
    "state_dict, step": lambda o: (o.state_dict(), o.step()),
    "load_state_dict": lambda o: o.load_state_dict(o.state_dict()),
    "deepcopy": lambda o: copy.deepcopy(o.state_dict()),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_inference_mode_changes_no_later_step(optimizer: Any, flags: dict[str, Any], dtype: str, action: str) -> None:
    """Each action is taken in inference mode before, between and after usual steps, and outside of it."""
    ours, plain = (parameters(getattr(torch, dtype)) for _ in range(2))
    a, b = (optimizer(params, lr=0.05, **flags) for params in (ours, plain))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fused=True, but")
        for k in range(6):
            for params, instance, inference in ((ours, a, k % 2 == 0), (plain, b, False)):
                set_gradients(params, k)
                with torch.inference_mode(inference):
                    ACTIONS[action](instance)
                instance.step()
                instance.state_dict()
            assert difference(ours, plain) == 0.0
    held = [x for state in a.state_dict()["state"].values() for x in state.values()]
    assert not any(x.is_inference() for x in held)


# Dicts of a state


READERS: dict[str, Callable[[Any], Any]] = {
    "item": lambda state: state["velocity"],
    "items": lambda state: dict(state.items())["velocity"],
    "dict": lambda state: dict(state)["velocity"],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_state_taken_early_shows_true_velocities(taken: int, reader: str) -> None:
    """Before the first step, and before `state_dict`, which may convert velocities."""
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    held: Any = None
    for k in range(5):
        if k == taken:
            held = a.state[ours[2]]
        for params, instance in ((ours, a), (plain, b)):
            set_gradients(params, k)
            instance.step()
        if k == 3:
            a.state_dict()
        if k >= taken:
            assert difference([READERS[reader](held)], [b.state[plain[2]]["velocity"]]) < 1e-14


@pytest.mark.parametrize("taken", ["before the first step", "before state_dict"])
def test_writes_to_a_state_taken_early_are_used_by_the_next_step(taken: str) -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    held = [o.state[ps[2]] for o, ps in ((a, ours), (b, plain))]
    for k in range(4):
        if k == 2:
            if taken == "before state_dict":
                held = [o.state[ps[2]] for o, ps in ((a, ours), (b, plain))]
                a.state_dict()
                b.state_dict()
            held[0]["velocity"] = torch.ones_like(ours[2])
            held[1]["velocity"] = torch.ones_like(plain[2])
        for params, instance in ((ours, a), (plain, b)):
            set_gradients(params, k)
            instance.step()
        assert difference(ours, plain) < 1e-13


def test_a_missing_velocity_is_made_anew() -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    for k in range(4):
        for params, instance in ((ours, a), (plain, b)):
            set_gradients(params, k)
            instance.step()
        if k == 1:
            del a.state[ours[2]]["velocity"]
            b.state[plain[2]]["velocity"].zero_()
    assert difference(ours, plain) < 1e-14


@EACH
def test_tensors_of_a_state_are_leaves_of_a_pytree(optimizer: Any) -> None:
    _, instance = stepped(optimizer)
    doubled = _pytree.tree_map_only(torch.Tensor, lambda x: 2 * x, dict(instance.state))
    for p, state in instance.state.items():
        for name, x in state.items():
            assert torch.equal(doubled[p][name], 2 * x)


# Scales of velocities


def test_missing_gradients_and_a_schedule_need_one_kernel_call() -> None:
    """20 velocities that have missed different steps have 20 different scales, until the next step."""
    ours, plain = (parameters(torch.float64, ((7,),) * 20) for _ in range(2))
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    generator = torch.Generator().manual_seed(3)
    for k in range(30):
        present = torch.rand(20, generator=generator) < 0.6
        for params, instance in ((ours, a), (plain, b)):
            set_gradients(params, k)
            instance.param_groups[0]["lr"] = 0.05 * 0.95**k
            for p, has_grad in zip(params, present, strict=True):
                p.grad = p.grad if has_grad else None
        with counted_calls() as kernel:
            a.step()
        b.step()
        assert kernel.call_count <= 1
        assert difference(ours, plain) < 1e-13


# Counters


@pytest.mark.parametrize("stored", [int, float, lambda step: torch.tensor(int(step))], ids=["int", "float", "tensor"])
def test_steps_stored_as_numbers_are_loaded(stored: Callable[[Any], Any]) -> None:
    """As old checkpoints of torch's optimizers have them, and in a tensor of integers."""
    ours, a = stepped(inna_torch.INNAprop)
    plain, b = stepped(inna_torch.INNAprop)
    saved = copy.deepcopy(a.state_dict())
    for state in saved["state"].values():
        state["step"] = stored(state["step"])
    a.load_state_dict(saved)
    for params, instance in ((ours, a), (plain, b)):
        set_gradients(params, 2)
        instance.step()
    assert difference(ours, plain) == 0.0
    assert {float(state["step"]) for state in a.state.values()} == {3.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("optimizer", "flags"), [row for row in ROWS if row.values[0] is inna_torch.INNAprop])
def test_step_has_the_default_dtype(optimizer: Any, flags: dict[str, Any], dtype: Any) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        _, ours = stepped(optimizer, torch.float32, **flags)
        _, theirs = stepped(torch.optim.AdamW, torch.float32)
    finally:
        torch.set_default_dtype(before)
    assert {state["step"].dtype for state in ours.state.values()} == {dtype}
    assert {state["step"].dtype for state in theirs.state.values()} == {dtype}


# Copies


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
@pytest.mark.filterwarnings("ignore:fused=True, but")
def test_a_loaded_state_shares_no_memory_with_the_saved_one(optimizer: Any, flags: dict[str, Any], dtype: str) -> None:
    """Else two optimizers that go on from one state would change each other's."""
    params, saved_from = stepped(optimizer, getattr(torch, dtype), kahan_sum=True, **flags)
    loaded_into = optimizer(params, kahan_sum=True, **flags)
    loaded_into.load_state_dict(saved_from.state_dict())
    old, new = (
        {x.data_ptr() for state in instance.state.values() for x in state.values() if x.numel()}
        for instance in (saved_from, loaded_into)
    )
    assert old
    assert old.isdisjoint(new)


# Hooks


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@EACH
def test_load_state_dict_post_hooks_keep_what_they_put(optimizer: Any, dtype: str) -> None:
    params, instance = stepped(optimizer, getattr(torch, dtype))
    saved = copy.deepcopy(instance.state_dict())
    put = {name: torch.full_like(x, 5.0) for name, x in saved["state"][2].items() if x.dtype.is_floating_point}

    def replace(o: Any) -> None:
        for name, x in put.items():
            o.state[params[2]][name] = x

    instance.register_load_state_dict_post_hook(replace)
    instance.load_state_dict(saved)
    assert put
    assert all(instance.state[params[2]][name] is x for name, x in put.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@EACH
def test_load_state_dict_pre_hooks_change_what_is_loaded(optimizer: Any, dtype: str) -> None:
    params, instance = stepped(optimizer, getattr(torch, dtype))

    def zeroed(_: Any, saved: Any) -> Any:
        state = {i: {name: torch.zeros_like(x) for name, x in held.items()} for i, held in saved["state"].items()}
        return {**saved, "state": state}

    instance.register_load_state_dict_pre_hook(zeroed)
    instance.load_state_dict(instance.state_dict())
    assert all(not x.any() for p in params for x in instance.state[p].values())


@EACH
def test_state_dict_hooks_see_plain_dicts_with_true_velocities(optimizer: Any) -> None:
    params, instance = stepped(optimizer)
    _, plain = stepped(optimizer, foreach=False)
    states: list[Any] = []
    instance.register_state_dict_post_hook(lambda _, saved: states.append(saved["state"][2]))
    instance.state_dict()
    assert type(states[0]) is dict
    assert difference([states[0]["velocity"]], [list(plain.state.values())[2]["velocity"]]) < 1e-14
    assert params[2] in instance.state


# Warnings


@EACH
def test_warnings_point_to_the_line_that_calls_step(optimizer: Any) -> None:
    params = parameters(torch.float32)
    instance = optimizer(params, lr=7.0, fused=True)
    scheduler = torch.optim.lr_scheduler.ConstantLR(instance)  # wraps `step`
    set_gradients(params, 0)
    line = inspect.currentframe().f_lineno + 2  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="fused=True, but") as shown:
        instance.step()
    scheduler.step()
    assert [(w.filename, w.lineno) for w in shown] == [(__file__, line)]
