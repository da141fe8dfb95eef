"""What a step refuses: parameters, gradients and states that it could not update."""

from operator import attrgetter
from typing import Any

import torch

from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import Tensor, Tensors, is_expanded, state_dtype

LAYOUT, DTYPE = map(attrgetter, ("layout", "dtype"))


def check_tensors(names: list[str], columns: list[list[Any]]) -> None:
    for name, column in zip(names, columns, strict=True):
        for x in column:
            if not isinstance(x, Tensor):
                raise TypeError(f"Invalid state: {name} is {x!r} (expected a tensor)")


def check_params(params: Tensors, hyper: Hyperparameters) -> None:
    if hyper.capturable and any(p.is_cpu for p in params):
        raise RuntimeError("Invalid capturable: True (expected False for parameters on cpu)")
    if hyper.differentiable and any(p.requires_grad and p.is_leaf for p in params):
        raise RuntimeError(
            "Invalid params: a leaf that requires gradients (expected tensors computed from others, such as p.clone(), "
            "where differentiable is True)"
        )
    check_writable("params", params)


def check_writable(name: str, tensors: Tensors) -> None:
    for x in tensors:
        if is_expanded(x):
            raise RuntimeError(
                f"Invalid {name}: an expanded tensor of shape {tuple(x.shape)} and strides {x.stride()} (expected one "
                "whose elements do not share memory, such as x.clone())"
            )
        if x.is_conj() or x.is_neg():
            raise RuntimeError(
                f"Invalid {name}: a conjugated or negated view of shape {tuple(x.shape)} (expected one whose memory "
                "holds its values, such as x.resolve_conj().resolve_neg())"
            )


def check_columns(columns: list[Tensors], names: list[str]) -> None:
    """Refuse gradients and slots that do not fit their parameters, all of one dtype."""
    params, grads, *slots = columns
    for layout in set(map(LAYOUT, grads)) - {torch.strided}:
        raise RuntimeError(
            f"Invalid grad: layout {layout} (expected torch.strided: sparse gradients are not supported)"
        )
    dtype = params[0].dtype
    for name, column in zip(("grad", *names), columns[1:], strict=True):
        for x, p in zip(column, params, strict=True):
            if x.shape != p.shape or x.device != p.device:
                argument, what = ("grad", "") if name == "grad" else ("state", f"{name} of ")
                raise ValueError(
                    f"Invalid {argument}: {what}shape {tuple(x.shape)} on {x.device} (expected {tuple(p.shape)} on "
                    f"{p.device}, as the parameter)"
                )
    for found in set(map(DTYPE, grads)):
        if found.is_complex != dtype.is_complex or not (found.is_complex or found.is_floating_point):
            kind = "complex" if dtype.is_complex else "real floating-point"
            raise TypeError(f"Invalid grad: dtype {found} (expected a {kind} dtype, as the parameter's)")
    for name, column in zip(names, slots, strict=True):
        expected = dtype if name == "compensation" else state_dtype(dtype)
        for found in set(map(DTYPE, column)) - {expected}:
            raise TypeError(f"Invalid state: {name} of dtype {found} (expected {expected} beside a {dtype} parameter)")
        check_writable(f"state: {name}", column)
