"""Entries that users and other libraries keep in an optimizer's state are theirs: left alone, saved and loaded."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conformance_tests.torch_host.rows import (  # noqa: E402
    OPTIMIZERS,
    ROWS,
    counted_calls,
    difference,
    parameters,
    set_gradients,
)

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)

ENTRIES: dict[str, Callable[[Any], Any]] = {
    "tensor like the parameter": lambda p: torch.full_like(p.detach(), 3.0),
    "tensor of another shape": lambda p: torch.arange(3.0),
    "tensor of another dtype": lambda p: torch.ones(p.shape, dtype=torch.int32),
    "wide tensor": lambda p: torch.full(p.shape, 1 / 3, dtype=torch.float64),
    "sparse tensor": lambda p: torch.eye(3).to_sparse(),
    "number": lambda p: 3,
    "text": lambda p: "text",
    "None": lambda p: None,
    "list": lambda p: [torch.ones(2), 1.0],
    "dict": lambda p: {"inner": torch.ones(2), "step": 5},
}
READERS: dict[str, Callable[[Any, Any], Any]] = {
    "state": lambda o, p: o.state[p]["foreign"],
    "state_dict": lambda o, p: o.state_dict()["state"][2]["foreign"],
    "deepcopy": lambda o, p: list(copy.deepcopy(o).state.values())[2]["foreign"],
    "pickle": lambda o, p: list(pickle.loads(pickle.dumps(o)).state.values())[2]["foreign"],
}


def dense(value: Any) -> Any:
    """Return a tensor as one that `assert_close` compares with any other, and other values as they are."""
    return value.to_dense() if isinstance(value, torch.Tensor) else value


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert set(a) == set(b)
        a, b = list(a.values()), [b[key] for key in a]
    if isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(dense(a), dense(b), rtol=0, atol=0)
    else:
        assert a == b
        assert type(a) is type(b)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_foreign_entries_are_left_alone_and_change_no_step(optimizer: Any, flags: dict[str, Any], entry: str) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = optimizer(ours, lr=0.05, **flags), optimizer(plain, lr=0.05, **flags)
    value: Any = None
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        if k == 1:
            value = ENTRIES[entry](ours[2])
            a.state[ours[2]]["foreign"] = value
        a.step()
        b.step()
        assert difference(ours, plain) == 0.0
    assert a.state[ours[2]]["foreign"] is value
    assert_equal(value, ENTRIES[entry](ours[2]))
    for read in READERS.values():
        assert_equal(read(a, ours[2]), value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("entry", ENTRIES)
@EACH
def test_foreign_entries_are_loaded_as_torch_loads_them(optimizer: Any, entry: str, dtype: str) -> None:
    loaded = []
    for cls in (optimizer, torch.optim.SGD):
        params = parameters(getattr(torch, dtype))
        instance = cls(params, lr=0.05)
        set_gradients(params, 0)
        instance.step()
        instance.state[params[2]]["foreign"] = ENTRIES[entry](params[2])
        saved = copy.deepcopy(instance.state_dict())
        others = parameters(getattr(torch, dtype), seed=1)
        other = cls(others, lr=0.05)
        other.load_state_dict(saved)
        set_gradients(others, 1)
        other.step()
        loaded.append(other.state[others[2]]["foreign"])
    assert_equal(*loaded)


@pytest.mark.parametrize(("name", "kernel"), [("INNA", "_fused_sgd_"), ("INNAprop", "_fused_adamw_")])
def test_a_step_with_foreign_entries_is_one_kernel_call(name: str, kernel: str) -> None:
    params = parameters(torch.float32, ((10,),) * 20)
    optimizer = OPTIMIZERS[name](params)
    for k in range(3):
        set_gradients(params, k)
        for i, p in enumerate(params):
            optimizer.state[p][f"foreign {i}"] = torch.ones(i)
        with counted_calls(kernel) as calls:
            optimizer.step()
        assert calls.call_count == 1


@EACH
def test_entries_put_before_the_first_step_stay(optimizer: Any) -> None:
    params = parameters(torch.float32)
    instance = optimizer(params, lr=0.05)
    slow = torch.ones(7)
    instance.state[params[1]]["slow"] = slow
    set_gradients(params, 0)
    instance.step()
    assert instance.state[params[1]]["slow"] is slow
    assert "velocity" in instance.state[params[1]]


class Lookahead(torch.optim.Optimizer):
    """Slow weights kept in the state of the optimizer that it wraps, as timm keeps them.

    Reference: M. Zhang et al. Lookahead Optimizer: k steps forward, 1 step back. NeurIPS 2019.
    """

    def __init__(self, base: Any, rate: float = 0.5, period: int = 2) -> None:
        self.base, self.rate, self.period = base, rate, period
        self.defaults, self.param_groups, self.state = base.defaults, base.param_groups, base.state
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}
        for group in self.param_groups:
            group.setdefault("lookahead_step", 0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.base.step(closure)
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % self.period:
                continue
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.base.state[p]
                if "lookahead_slow_buff" not in state:
                    state["lookahead_slow_buff"] = p.detach().clone()
                slow = state["lookahead_slow_buff"]
                slow.add_(p - slow, alpha=self.rate)
                p.copy_(slow)
        return loss

    def state_dict(self) -> Any:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.base.load_state_dict(state_dict)
        self.param_groups = self.base.param_groups


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_lookahead_resumes_where_it_stopped(optimizer: Any, flags: dict[str, Any], dtype: str) -> None:
    staying, moving = (parameters(getattr(torch, dtype)) for _ in range(2))
    a, b = (Lookahead(optimizer(params, lr=0.05, **flags)) for params in (staying, moving))
    for k in range(9):
        for params, instance in ((staying, a), (moving, b)):
            set_gradients(params, k)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "fused=True, but")
                instance.step()
        assert difference(staying, moving) < 1e-6  # a saved velocity has been divided by its scale
        saved = copy.deepcopy(b.state_dict())
        b = Lookahead(optimizer(moving, lr=0.01, **flags))
        b.load_state_dict(saved)
