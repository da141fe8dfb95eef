"""The core's own update, operation by operation: the path that takes every batch.

It serves differentiable steps, steps that torch.compile traces, hyperparameters on an accelerator, low precision and
compensated sums.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import array_api_compat.torch as xp
import torch

from inna_core.compensation import compensated_increment
from inna_core.weight_decay import update_with_decay
from inna_torch._batch import Batch, entries_of
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import WIDER, Tensor, Tensors, state_dtype, update_in_blocks


def next_values(
    hyper: Hyperparameters,
    numbers: Mapping[str, Any],
    p: Tensor,
    g: Tensor,
    state: Mapping[str, Tensor],
    rounded: Callable[[Tensor, torch.dtype], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the next parameter and the next entries of its state except the step; nothing is changed.

    `numbers` replace those in `hyper`. With a ``compensation`` in the state the sum is compensated;
    `rounded` rounds to a narrow dtype.
    """
    dtype = state_dtype(p.dtype)
    own = dict(numbers)
    lr, weight_decay, algorithm = own.pop("lr"), own.pop("weight_decay"), type(hyper.algorithm)(**own)
    grad, theta = g.to(dtype), p.to(dtype)
    compensation = state["compensation"].to(dtype) if "compensation" in state else None
    delta, next_state = update_with_decay(
        algorithm,
        -grad if hyper.maximize else grad,
        algorithm.state_type(**{name: state[name].to(dtype) for name in algorithm.state_type._fields}),
        theta if compensation is None else theta + compensation,
        lr,
        weight_decay,
        published=hyper.published_decay,
        xp=xp,
    )
    new: dict[str, Tensor] = {name: x for name, x in next_state._asdict().items() if name != "step"}
    if compensation is not None:
        to_stored = rounded or (rounded_by_bits if torch.compiler.is_compiling() else rounded_by_cast)
        delta, new["compensation"] = compensated_increment(delta, compensation, theta, lambda x: to_stored(x, p.dtype))
    return theta + delta, new


def rounded_by_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in the precision of a narrow dtype, in its own dtype."""
    return x.to(dtype).to(x.dtype)


def rounded_by_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a float32 tensor in the precision of a narrow dtype, ties to even.

    Inductor drops a cast to the dtype and back, and with it the rounding.
    """
    if dtype not in WIDER:
        return x
    dropped = 16 if dtype == torch.bfloat16 else 13  # bits of the fraction that the dtype does not have
    bits = x.view(torch.int32)
    odd = (bits & 2**dropped).clamp(max=1)  # not by a shift: shifts have no effect on a DTensor in torch 2.13
    bits = (bits + (2 ** (dropped - 1) - 1) + odd) & -(2**dropped)
    y = bits.view(torch.float32)
    if dtype == torch.float16:
        limits = torch.finfo(dtype)
        # below the normal numbers, multiples of 2^-24, which is the spacing of float32 at 3/4
        y = torch.where(x.abs() < limits.smallest_normal, (x + 0.75) - 0.75, y)
        y = torch.where(y.abs() > limits.max, y * torch.inf, y)
    return torch.where(x != x, x, y)  # NaN; inductor would not vectorize isnan


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None]:
    """Return the batch's in-place step."""
    if hyper.differentiable:
        return partial(differentiable_step, batch, hyper)
    k = None if batch.step is None else torch.tensor(batch.step, dtype=torch.float64, device="cpu")

    def update(row: Tensors, step: Tensor | None = k) -> None:
        update_in_place(hyper, row[0], row[1], {**dict(zip(batch.slots, row[2:], strict=True)), "step": step})

    def run() -> None:
        for held, *row in zip(map(entries_of, batch.states), *batch.columns, strict=True):
            update(row, held.get("step") if k is None else k)

    in_blocks = batch.native and batch.dense and k is not None
    return (lambda: update_in_blocks(update, batch.columns)) if in_blocks else run


def update_in_place(hyper: Hyperparameters, p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    """Update a parameter and the entries of its state except the step."""
    theta, new = updated(hyper, p, g, state)
    targets, sources = [p, *(state[name] for name in new)], [theta, *new.values()]
    if torch.compiler.is_compiling():
        # after one multi-tensor copy inductor would compute later values from overwritten ones
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)
    else:
        torch._foreach_copy_(targets, sources)


def differentiable_step(batch: Batch, hyper: Hyperparameters) -> None:
    """Update parameters in place, and put new tensors into their states, so that both are differentiable."""
    for held, p, g, *slots in zip(map(entries_of, batch.states), *batch.columns, strict=True):
        row = dict(zip(batch.slots, slots, strict=True))
        # a copy: autograd needs the old parameter after it was overwritten
        theta, new = updated(hyper, p.clone(), g, {**row, "step": held.get("step")})
        p.copy_(theta)
        if "compensation" in new:
            row["compensation"].copy_(new.pop("compensation"))
        for name, x in new.items():
            x = x.to(row[name].dtype)
            held[name] = torch.view_as_complex(x) if held[name].is_complex() else x


def updated(hyper: Hyperparameters, p: Tensor, g: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    numbers = {name: readable(value, p) for name, value in hyper.numbers().items()}
    return next_values(hyper, numbers, p, g, state)


def readable(value: Any, p: Tensor) -> Any:
    """Return a number as the core takes it: a float, or a 0-d tensor of the state's dtype that p's device can read."""
    if not isinstance(value, Tensor):
        return value
    return value.to(device=None if value.is_cpu else p.device, dtype=state_dtype(p.dtype))
