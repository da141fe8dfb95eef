"""Properties of tensors, and updates of lists of tensors block by block."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

Tensor = torch.Tensor
Tensors = list[Tensor]

TORCH: Any = torch
"""torch's multi-tensor and fused functions are public but untyped."""

NATIVE_TENSOR_TYPES = {torch.nn.Parameter, torch.Tensor}
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64}
"""Dtypes with too few digits for sums over many steps, and the dtypes of their states."""

SMALL_NUMEL = 2**14
"""Up to this many elements, launching a kernel on a CPU takes longer than running it."""
CACHE_BLOCK_NUMEL = 2**16
"""Elements of a block whose temporaries stay in a CPU's cache."""
ACCELERATOR_BLOCK_NUMEL = 2**22
"""Elements of a block on accelerators, which have no large cache but need large tensors to be busy."""


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the state, and of the arithmetic, of parameters of a dtype."""
    return WIDER.get(dtype, dtype)


def local_shard(x: Tensor) -> Tensor:
    """Return this rank's shard of a DTensor, sharing its memory, and any other tensor as it is."""
    return x if type(x) in NATIVE_TENSOR_TYPES or not hasattr(x, "to_local") else x.to_local()  # type: ignore[operator]


def is_expanded(x: Tensor) -> bool:
    """Return whether elements of a tensor share memory, so that it cannot be written in place."""
    return not x.is_contiguous() and any(s == 0 and n > 1 for s, n in zip(x.stride(), x.shape, strict=True))


def resolved(x: Tensor) -> Tensor:
    """Return a tensor whose memory holds its values, not a view that is conjugated or negated when read."""
    return x.resolve_conj().resolve_neg()


def same_dense_layout(x: Tensor, like: Tensor) -> bool:
    """Return whether two tensors fill their memory in the same order, without gaps."""
    if x.is_contiguous():
        return like.is_contiguous()
    return x.stride() == like.stride() and TORCH.ops.aten.is_non_overlapping_and_dense(x)


def as_flat(x: Tensor) -> Tensor:
    """Return a dense tensor as a one-dimensional view of its memory."""
    return x if x.ndim == 1 else x.view(-1) if x.is_contiguous() else x.as_strided((x.numel(),), (1,))


def blocks(
    columns: Sequence[Tensors], size: int, *, shared: int, largest: int | None = None
) -> Iterator[list[Tensors]]:
    """Cut parallel lists of tensors, with one dense layout at each position, into blocks of up to `size` elements.

    A block holds whole tensors of at most `shared` elements each, or one larger tensor; one of more than `largest`
    elements (by default `size`) is cut into flat views. Tensors without elements are left out.
    """
    lengths = list(map(torch.Tensor.numel, columns[0]))
    if sum(lengths) <= size and max(lengths) <= shared and min(lengths):
        yield list(columns)
        return
    open_block: list[int] = []
    room = size
    for i, n in enumerate(lengths):
        if n > (largest or size):
            length = math.ceil(n / math.ceil(n / (largest or size)))  # equal pieces, rather than a short rest
            rows = [as_flat(column[i]).split(length) for column in columns]
            yield from ([[x] for x in piece] for piece in zip(*rows, strict=True))
        elif n > shared:
            yield [[column[i]] for column in columns]
        elif n:
            if n > room:
                yield [[column[j] for j in open_block] for column in columns]
                open_block, room = [], size
            open_block.append(i)
            room -= n
    if open_block:
        yield [[column[j] for j in open_block] for column in columns]


def share_memory(tensors: Tensors) -> bool:
    """Return whether any of these dense tensors overlap."""
    ranges = sorted((x.data_ptr(), x.nbytes) for x in tensors)
    return any(start + size > following for (start, size), (following, _) in pairwise(ranges))


def update_in_blocks(
    update: Callable[[Tensors], Any], columns: Sequence[Tensors], *, largest: int | None = None
) -> None:
    """Update parallel lists of tensors in place, block by block, the small tensors of a block as one.

    `update` is given a flat tensor of each column and writes to all but the second, the gradient.
    """
    on_cpu = columns[0][0].is_cpu
    size, shared = (
        (CACHE_BLOCK_NUMEL, SMALL_NUMEL) if on_cpu else (ACCELERATOR_BLOCK_NUMEL, ACCELERATOR_BLOCK_NUMEL // 2)
    )
    for block in blocks(columns, size, shared=shared, largest=largest):
        views = [list(map(as_flat, column)) for column in block]
        if len(block[0]) == 1 or share_memory(block[0]):
            for row in zip(*views, strict=True):
                update(list(row))
            continue
        flat = list(map(torch.cat, views))
        update(flat)
        lengths = list(map(torch.Tensor.numel, views[0]))
        for i in range(len(views)):
            if i != 1:
                TORCH._foreach_copy_(views[i], flat[i].split_with_sizes(lengths))
        del flat  # before the next block is copied
