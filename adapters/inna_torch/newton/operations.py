"""torch functions whose second or third derivatives are wrong or missing, and elementary versions that are right.

Native normalisations with batch statistics have hand-written double backward formulas. Differentiated once more they
give wrong numbers, without an error. Made of elementary operations they are right to any order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Tensor = torch.Tensor


def _normalised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    centred = x - x.mean(dim=tuple(dims), keepdim=True)
    return centred / ((centred * centred).mean(dim=tuple(dims), keepdim=True) + eps).sqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """See `torch.nn.functional.layer_norm`."""
    dims = range(-len(normalized_shape), 0)
    return _affine(_normalised(input, dims, eps), weight, bias, tuple(normalized_shape))


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """See `torch.nn.functional.rms_norm`."""
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    x = input / ((input * input).mean(dim=dims, keepdim=True) + eps).sqrt()
    return _affine(x, weight, None, tuple(normalized_shape))


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """See `torch.nn.functional.group_norm`."""
    grouped = input.reshape(input.shape[0], num_groups, -1)
    x = _normalised(grouped, (-1,), eps).reshape(input.shape)
    return _affine(x, weight, bias, _per_channel(input))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """See `torch.nn.functional.instance_norm`; running statistics are left as they are."""
    if not use_input_stats:
        return _by_running_statistics(input, running_mean, running_var, weight, bias, eps)
    return _affine(_normalised(input, range(2, input.dim()), eps), weight, bias, _per_channel(input))


def functional_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """See `torch.nn.functional.batch_norm`; running statistics are left as they are."""
    if not training:
        return _by_running_statistics(input, running_mean, running_var, weight, bias, eps)
    dims = [i for i in range(input.dim()) if i != 1]
    return _affine(_normalised(input, dims, eps), weight, bias, _per_channel(input))


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """See `torch.batch_norm`, whose arguments come in another order."""
    return functional_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _per_channel(input: Tensor) -> tuple[int, ...]:
    return (1, -1) + (1,) * (input.dim() - 2)


def _by_running_statistics(
    input: Tensor, mean: Any, variance: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = _per_channel(input)
    return _affine((input - mean.reshape(shape)) / (variance.reshape(shape) + eps).sqrt(), weight, bias, shape)


REWRITTEN: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    functional.group_norm: group_norm,
    torch.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.batch_norm: functional_batch_norm,
    torch.batch_norm: batch_norm,
}
"""By the function that a model calls, its replacement."""

REFUSED: dict[Callable[..., Any], str] = {
    torch.native_layer_norm: "torch.native_layer_norm",
    torch.native_batch_norm: "torch.native_batch_norm",
    torch.native_group_norm: "torch.native_group_norm",
    torch.instance_norm: "torch.instance_norm",
    torch.batch_norm_stats: "torch.nn.SyncBatchNorm",
    torch.ctc_loss: "ctc_loss",
    functional.ctc_loss: "ctc_loss",
}
"""Functions with wrong or missing derivatives that have no replacement here, and their names in the message."""


PRODUCTS = frozenset(
    {
        functional.linear,
        functional.bilinear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
        torch.mm,
        torch.bmm,
        torch.matmul,
        torch.addmm,
        torch.baddbmm,
        torch.einsum,
        Tensor.mm,
        Tensor.bmm,
        Tensor.matmul,
        Tensor.addmm,
        Tensor.baddbmm,
        Tensor.__matmul__,
        Tensor.__rmatmul__,
    }
)
"""Multilinear (or affine) functions, most of a network's cost; `Pieces` are what lies between two of them. A missing
function costs time; a function that is not multilinear would make third derivatives wrong."""
