"""Steps at the edges of what torch allows: traced with loss scaling, counters of other types, threads, conjugates."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import (  # noqa: E402
    COMPILES,
    OPTIMIZERS,
    ROWS,
    difference,
    parameters,
    set_gradients,
)
from inna_torch.paths import compiled  # noqa: E402

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
MIXED = (torch.float32, torch.complex64)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own imports
@EACH
def test_a_compiled_step_heeds_grad_scaler(optimizer: Any) -> None:
    """A compiled step works behind GradScaler, which skips steps whose gradients have overflowed."""
    torch._dynamo.reset()
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = optimizer(ours, lr=0.05, fused=True), optimizer(plain, lr=0.05, fused=True)
    a.step = torch.compile(a.step, backend="eager")
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0) for _ in range(2)]
    for k in range(4):
        for params, instance, scaler in ((ours, a, scalers[0]), (plain, b, scalers[1])):
            instance.zero_grad()
            scaler.scale(torch.stack([(p * p).sum() for p in params]).sum()).backward()
            if k == 2:
                params[1].grad[3] = torch.inf
            scaler.step(instance)
            scaler.update()
        assert difference(ours, plain) < 1e-6


@pytest.mark.parametrize("value", [torch.tensor(7.0), 7], ids=["tensor", "number"])
def test_innas_state_may_hold_a_foreign_step(value: Any) -> None:
    """INNA counts no steps, so the name is free."""
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05)
    a.state[ours[1]]["step"] = value
    for k in range(3):
        for params, instance in ((ours, a), (plain, b)):
            set_gradients(params, k)
            instance.step()
    assert difference(ours, plain) == 0.0
    a.load_state_dict(a.state_dict())
    assert type(a.state[ours[1]]["step"]) is type(value)
    assert float(a.state[ours[1]]["step"]) == 7.0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (torch.tensor(3), "integer dtype"),
        (torch.tensor(-1.0), r"\[-1.0, 1.0\]"),
        (torch.tensor(torch.inf), r"\[1.0, inf\]"),
    ],
    ids=str,
)
def test_a_counter_that_is_no_number_of_steps_is_refused(step: Any, message: str) -> None:
    params = parameters()
    optimizer = inna_torch.INNAprop(params)
    set_gradients(params, 0)
    optimizer.step()
    optimizer.state[params[2]]["step"] = step
    before = [p.detach().clone() for p in params]
    with pytest.raises((TypeError, ValueError), match=f"Invalid state: step.*{message}"):
        optimizer.step()
    assert all(torch.equal(p, x) for p, x in zip(params, before, strict=True))


def test_the_default_dtype_does_not_round_the_number_of_steps() -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = (inna_torch.INNAprop(params, lr=0.01, foreach=False) for params in (ours, plain))
    for params, instance in ((ours, a), (plain, b)):
        set_gradients(params, 0)
        instance.step()
        for state in instance.state.values():
            state["step"].fill_(257.0)  # bfloat16 counts to 256
    torch.set_default_dtype(torch.bfloat16)
    try:
        a.step()
    finally:
        torch.set_default_dtype(torch.float32)
    b.step()
    assert difference(ours, plain) == 0.0


@EACH
def test_a_group_may_opt_out_of_differentiable_steps(optimizer: Any) -> None:
    free, leaf = torch.ones(3, dtype=torch.float64), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    moved = free.clone().requires_grad_() * 1.0
    groups = [{"params": [moved]}, {"params": [leaf], "differentiable": False}]
    instance = optimizer(groups, lr=0.05, differentiable=True, weight_decay=0.1)
    moved.grad, leaf.grad = torch.ones_like(free), torch.ones_like(leaf)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        instance.step()
    assert difference([moved], [leaf]) < 1e-15
    assert moved.requires_grad


@COMPILES
def test_compiled_steps_may_start_in_several_threads() -> None:
    compiled.compiled_update.cache_clear()
    errors: list[Exception] = []

    def train() -> None:
        params = parameters(torch.float32)
        set_gradients(params, 0)
        try:
            inna_torch.INNAprop(params, compiled=True).step()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@EACH
def test_conjugated_gradients_count_as_their_values(optimizer: Any) -> None:
    ours, plain = parameters(torch.complex128), parameters(torch.complex128)
    a, b = optimizer(ours, lr=0.05), optimizer(plain, lr=0.05)
    set_gradients(plain, 0)
    for p, q in zip(ours, plain, strict=True):
        p.grad = q.grad.conj().resolve_conj().conj()
        assert p.grad.is_conj()
    a.step()
    b.step()
    assert difference(ours, plain) == 0.0


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_negated_gradients_count_as_their_values(optimizer: Any, flags: dict[str, Any]) -> None:
    """Autograd makes a negated view for the imaginary part of one number that is conjugated."""
    ours, plain = ([torch.nn.Parameter(torch.ones(1)) for _ in range(2)] for _ in range(2))
    a, b = (optimizer(params, lr=0.05, **flags) for params in (ours, plain))
    for _ in range(2):
        (torch.complex(*ours).conj() * (3 + 2j)).real.sum().backward()
        for p, q in zip(ours, plain, strict=True):
            q.grad = p.grad.resolve_neg().clone()
        assert ours[1].grad.is_neg()
        a.step()
        b.step()
        a.zero_grad()
    assert difference(ours, plain) == 0.0


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own imports
@EACH
def test_conjugated_and_negated_gradients_can_be_traced(optimizer: Any) -> None:
    torch._dynamo.reset()
    ours, plain = ([torch.nn.Parameter(torch.ones(1, dtype=dtype)) for dtype in MIXED] for _ in range(2))
    a, b = (optimizer(params, lr=torch.tensor(0.05)) for params in (ours, plain))
    step = torch.compile(a.step, backend="aot_eager")
    for _ in range(2):
        for p, q in zip(ours, plain, strict=True):
            q.grad = torch.full_like(q, 2.0)
            p.grad = (q.grad + 0j).conj() if p.is_complex() else torch._neg_view(-q.grad)
        step()
        b.step()
    assert difference(ours, plain) < 1e-6


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_a_gradient_that_is_not_finite_spoils_its_own_element_only(
    optimizer: Any, flags: dict[str, Any], bad: float
) -> None:
    """All other elements move as they do without it, and gradients are left alone."""
    ours, plain = (parameters(torch.float32, ((40,), (3, 3), (70_000,))) for _ in range(2))
    a, b = (optimizer(params, lr=0.01, **flags) for params in (ours, plain))
    for k in range(3):
        set_gradients(ours, k)
        set_gradients(plain, k)
        ours[0].grad[7] = ours[2].grad[69_999] = bad
        grads = [p.grad.clone() for p in ours]
        a.step()
        b.step()
        for p, q, g in zip(ours, plain, grads, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(p.isfinite(), g.isfinite())
            assert torch.equal(p[g.isfinite()], q[g.isfinite()])


VIEWS: dict[str, Callable[[], Any]] = {
    "conjugated": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "negated": lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_parameters_that_are_lazily_conjugated_or_negated_are_refused(
    optimizer: Any, flags: dict[str, Any], view: str
) -> None:
    """Kernels see the memory, not the values, and a resolved copy would be updated in the parameter's place."""
    p = torch.nn.Parameter(VIEWS[view]())
    p.grad = torch.ones_like(p).resolve_conj().resolve_neg()
    with pytest.raises(RuntimeError, match=r"Invalid params: .*expected .* x\.resolve_conj\(\)\.resolve_neg\(\)"):
        optimizer([p], **flags).step()


def test_parameters_of_eight_bits_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Invalid params: a tensor of dtype torch\.float8_e5m2"):
        inna_torch.INNA([torch.zeros(3, dtype=torch.float8_e5m2)])
