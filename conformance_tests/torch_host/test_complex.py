"""Complex parameters are updated as torch.optim does: real and imaginary parts as two real parameters."""

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conformance_tests.torch_host.rows import OPTIMIZERS, ROWS, SHAPES  # noqa: E402

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
DTYPES = ("complex32", "complex64", "complex128")


def random(shape: Any, dtype: Any, generator: Any) -> Any:
    return torch.view_as_complex(torch.randn(*shape, 2, generator=generator, dtype=torch.float64)).to(dtype)


def pairs(dtype: Any, layout: str = "contiguous") -> tuple[list[Any], list[Any]]:
    """Return complex parameters, and real ones with the same values in a last axis of length 2."""
    generator = torch.Generator().manual_seed(0)
    values = [random(shape, dtype, generator) for shape in SHAPES]
    if layout == "transposed":
        values = [x.mT.contiguous().mT if x.ndim > 1 else x for x in values]
    return [torch.nn.Parameter(x) for x in values], [torch.nn.Parameter(real(x)) for x in values]


def real(x: Any) -> Any:
    return torch.view_as_real(x).clone() if x.is_complex() else x


def set_gradients(ours: list[Any], theirs: list[Any], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p, q in zip(ours, theirs, strict=True):
        p.grad = random(p.shape, p.dtype, generator)
        q.grad = real(p.grad)


@pytest.mark.parametrize("layout", ["contiguous", pytest.param("transposed", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kahan_sum", [None, *(pytest.param(x, marks=pytest.mark.nightly) for x in (True, False))])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_complex_steps_equal_those_of_real_and_imaginary_parts(
    optimizer: Any, flags: dict[str, Any], kahan_sum: bool | None, dtype: str, layout: str
) -> None:
    ours, theirs = pairs(getattr(torch, dtype), layout)
    shared: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.3, "kahan_sum": kahan_sum, **flags}
    a, b = optimizer(ours, **shared), optimizer(theirs, **shared)
    for k in range(4):
        set_gradients(ours, theirs, k)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            a.step()
            b.step()
        if k == 1:
            a.load_state_dict(copy.deepcopy(a.state_dict()))
    tolerance = 1e-13 if dtype == "complex128" else 2e-6
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(real(p.detach()), q.detach(), rtol=tolerance, atol=tolerance)
        assert set(a.state[p]) == set(b.state[q])
        for name, x in b.state[q].items():
            held = a.state[p][name]
            assert held.is_complex() == (name != "step")
            torch.testing.assert_close(real(held), x, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(
    ("dtype", "velocity"), [("complex32", "complex64"), ("complex64", "complex64"), ("complex128", "complex128")]
)
@EACH
def test_states_of_complex_parameters_are_complex(optimizer: Any, dtype: str, velocity: str) -> None:
    ours, theirs = pairs(getattr(torch, dtype))
    instance = optimizer(ours)
    set_gradients(ours, theirs, 0)
    instance.step()
    for p, state in zip(ours, instance.state_dict()["state"].values(), strict=True):
        assert state["velocity"].dtype == getattr(torch, velocity)
        assert state["velocity"].shape == p.shape
        assert ("compensation" in state) is (dtype == "complex32")
        assert state.get("compensation", p).dtype == p.dtype


@pytest.mark.parametrize("velocity", ["float32", "complex128"])
@EACH
def test_a_state_of_another_dtype_is_refused(optimizer: Any, velocity: str) -> None:
    ours, theirs = pairs(torch.complex64)
    instance = optimizer(ours)
    set_gradients(ours, theirs, 0)
    instance.step()
    before = [p.detach().clone() for p in ours]
    instance.state[ours[2]]["velocity"] = torch.zeros(ours[2].shape, dtype=getattr(torch, velocity))
    with pytest.raises(TypeError, match=f"Invalid state: velocity of dtype torch.{velocity} .expected torch.complex64"):
        instance.step()
    assert all(torch.equal(p, x) for p, x in zip(ours, before, strict=True))


@EACH
def test_gradients_flow_through_a_differentiable_complex_step(optimizer: Any) -> None:
    def trained(theta: Any, g: Any) -> Any:
        p = theta.clone()
        instance = optimizer([p], lr=0.05, differentiable=True, weight_decay=0.1)
        for _ in range(2):
            p.grad = g
            instance.step()
        return p

    generator = torch.Generator().manual_seed(0)
    theta, g = (random((3,), torch.complex128, generator).requires_grad_() for _ in range(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        assert torch.autograd.gradcheck(trained, (theta, g))


@EACH
def test_torch_compile_traces_complex_steps(optimizer: Any) -> None:
    torch._dynamo.reset()
    ours, theirs = pairs(torch.complex64)
    a, b = optimizer(ours, lr=0.05), optimizer(theirs, lr=0.05, foreach=False)
    step = torch.compile(a.step, backend="eager")
    for k in range(3):
        set_gradients(ours, theirs, k)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(real(p.detach()), q.detach())
