"""Rows of the torch tests (a class and its flags), and what all of them need: parameters, gradients, distances."""

from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.distances import largest  # noqa: E402
from conformance_tests.matrix.hosts import no_compiler  # noqa: E402

SHAPES = ((), (7,), (3, 4), (2, 3, 4, 5), (0, 5))
PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "default": {},
    "compiled": {"compiled": True},
    "all compiled": {"compiled": True, "foreach": False},
}
COMPILES = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))
OPTIMIZERS: dict[str, Any] = {"INNA": inna_torch.INNA, "INNAprop": inna_torch.INNAprop}
ROWS = [
    pytest.param(optimizer, flags, id=f"{name}-{path}", marks=[COMPILES] if "compiled" in flags else [])
    for name, optimizer in OPTIMIZERS.items()
    for path, flags in PATHS.items()
]


def parameters(dtype: Any = None, shapes: Any = SHAPES, seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype or torch.float64)) for s in shapes]


def set_gradients(params: list[Any], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def difference(a: list[Any], b: list[Any]) -> float:
    return largest(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True) if x.numel())


def counted_calls(kernel: str = "_fused_sgd_") -> Any:
    """Return a context in which calls of a kernel of torch are counted, and made."""
    return mock.patch.object(torch, kernel, wraps=getattr(torch, kernel))
