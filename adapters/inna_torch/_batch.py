"""Batches: the parameters of a group that can be updated together, gathered and checked before a step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.optim.optimizer import _get_scalar_dtype

from inna_core.algorithm import slot_names
from inna_torch._checks import DTYPE, LAYOUT, check_columns, check_params, check_tensors
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._scaled_state import ScaledState
from inna_torch._tensors import (
    NATIVE_TENSOR_TYPES,
    TORCH,
    WIDER,
    Tensor,
    Tensors,
    local_shard,
    resolved,
    same_dense_layout,
    state_dtype,
)

KERNEL_DTYPES = (torch.float32, torch.float64)
KIND = attrgetter("shape", "dtype", "device")
KIND_ON_CPU = attrgetter("shape", "dtype", "is_cpu")


@dataclass(slots=True)
class Batch:
    """Parameters of a group with one dtype, device and number of steps, with their gradients and states.

    Attributes:
        params: the tensors to update: real views of complex parameters, this rank's shards of distributed ones.
        grads: their gradients, shapes as the parameters.
        slots: by name, the other tensors of their states except the step, likewise.
        states: the parameters' states: plain dicts, or all of them `ScaledState`.
        step: number of steps made before, 0 where the algorithm does not count; None where it must not be read.
        counters: of the steps in the states; none where the algorithm does not count.
        dtype: of the parameters.
        device: of all tensors but the counters of steps.
        native: whether no tensor is of a subclass, which multi-tensor calls and compiled code may not know.
        dense: whether each parameter, its gradient and slots fill memory in the same order, without gaps.
    """

    params: Tensors
    grads: Tensors
    slots: dict[str, Tensors]
    states: list[Any]
    step: float | None
    counters: Tensors
    dtype: torch.dtype
    device: torch.device
    native: bool
    dense: bool

    @property
    def columns(self) -> list[Tensors]:
        return [self.params, self.grads, *self.slots.values()]

    @property
    def scaled(self) -> bool:
        """Whether the states may store the velocities times a factor."""
        return type(self.states[0]) is ScaledState

    @property
    def suits_kernels(self) -> bool:
        """Whether torch's fused kernels, which support neither strides nor compensation, can update these tensors."""
        wide = self.dtype == self.grads[0].dtype in KERNEL_DTYPES
        return wide and self.dense and self.native and "compensation" not in self.slots

    def count_step(self) -> None:
        """Add one to the counters of steps, and drop compensations that are no longer used."""
        if "compensation" not in self.slots:
            for entries in map(entries_of, self.states):
                entries.pop("compensation", None)
        if self.step is not None and self.counters:
            # adding 1 to each takes four times as long
            following = torch.full_like(self.counters[0], self.step + 1)
            TORCH._foreach_copy_(self.counters, [following] * len(self.counters))
        elif self.counters:
            TORCH._foreach_add_(self.counters, 1.0)


def entries_of(state: Any) -> dict[str, Any]:
    """Return the entries of a parameter's state as they are stored; the velocity may be scaled."""
    return state.entries if type(state) is ScaledState else state


def tensor_names(hyper: Hyperparameters, dtype: torch.dtype) -> list[str]:
    """Return the entries of a state that hold a tensor like the parameter."""
    names = slot_names(hyper.algorithm)
    compensated = dtype in WIDER if hyper.kahan_sum is None else hyper.kahan_sum
    return [*names, "compensation"] if compensated else names


def gather(params: Tensors, states: Mapping[Tensor, Any], hyper: Hyperparameters) -> list[Batch]:
    """Return the batches of a group's parameters that have a gradient; missing states are made.

    Raises:
        RuntimeError: if a gradient is sparse, or a parameter cannot be written in place.
        TypeError, ValueError: if a gradient or a state does not fit its parameter.
    """
    owners = [p for p in params if p.grad is not None]
    dtypes = dict.fromkeys(map(DTYPE, owners))
    parts = [owners] if len(dtypes) == 1 else [[p for p in owners if p.dtype == dtype] for dtype in dtypes]
    return [batch for part in parts for batch in gather_dtype(part, states, hyper)]


def gather_dtype(owners: Tensors, all_states: Mapping[Tensor, Any], hyper: Hyperparameters) -> list[Batch]:
    """Return the batches of parameters of one dtype, all with a gradient."""
    dtype = owners[0].dtype
    grads: list[Any] = [p.grad for p in owners]
    states = [all_states[p] for p in owners]
    names = tensor_names(hyper, dtype)
    held = list(map(entries_of, states))
    try:
        slots = [[entries[name] for entries in held] for name in names]
    except KeyError:
        for p, state in zip(owners, states, strict=True):
            init_state(p, state, hyper)
        slots = [[entries[name] for entries in held] for name in names]
    counters: list[Any] = []
    steps: list[float | None] = [0.0] * len(owners)
    if "step" in hyper.algorithm.state_type._fields:
        counters = [entries.get("step") for entries in held]
        steps = steps_before(counters, hyper)
    columns = [owners, grads, *slots]
    if (
        len(set(steps)) == 1 == len(set(map(type, states)))
        and not (hyper.differentiable or hyper.capturable)
        and alike(columns)
    ):
        named = dict(zip(names, slots, strict=True))
        return [Batch(owners, grads, named, states, steps[0], counters, dtype, owners[0].device, True, True)]
    return split(columns, names, states, steps, counters, hyper)


def alike(columns: list[Tensors]) -> bool:
    """Return whether the tensors are native, contiguous, on one device, of one wide dtype, and their shapes fit.

    This common case needs no further checks.
    """
    tensors = list(chain.from_iterable(columns))
    if not NATIVE_TENSOR_TYPES.issuperset(map(type, tensors)):
        return False
    kinds = list(map(KIND_ON_CPU if tensors[0].is_cpu else KIND, tensors))
    first = kinds[: len(columns[0])]
    _, dtype, device = kinds[0]
    return (
        dtype in KERNEL_DTYPES
        and kinds == first * len(columns)
        and all(kind[2] == device for kind in first)
        and set(map(LAYOUT, columns[1])) == {torch.strided}  # the parameters' too: torch refuses others
        and all(map(torch.Tensor.is_contiguous, tensors))
        and not any(map(torch.Tensor.is_neg, columns[0] + columns[1]))  # states only if a user stores one
    )


def split(
    columns: list[Tensors],
    names: list[str],
    states: list[Any],
    steps: list[float | None],
    counters: list[Any],
    hyper: Hyperparameters,
) -> list[Batch]:
    """Return the batches of parameters of one dtype, their gradients and slots."""
    owners, dtype = columns[0], columns[0][0].dtype
    native = [True] * len(owners)
    if not NATIVE_TENSOR_TYPES.issuperset(map(type, chain(*columns))):
        check_tensors(names, columns[2:])
        columns = [owners, [placed_like(g, p) for g, p in zip(columns[1], owners, strict=True)], *columns[2:]]
        columns = [list(map(local_shard, column)) for column in columns]
        native = [NATIVE_TENSOR_TYPES.issuperset(map(type, row)) for row in zip(*columns, strict=True)]
    check_params(columns[0], hyper)
    check_columns(columns, names)
    columns[1] = list(map(resolved, columns[1]))
    if dtype.is_complex:
        columns, dtype = [list(map(torch.view_as_real, column)) for column in columns], dtype.to_real()
    dense = [all(same_dense_layout(x, row[0]) for x in row) for row in zip(*columns, strict=True)]
    parts: dict[Any, list[int]] = {}
    keys = map(DTYPE, columns[1]), (p.device for p in columns[0]), native, dense, map(type, states), steps
    for i, key in enumerate(zip(*keys, strict=True)):
        parts.setdefault(key, []).append(i)
    batches = []
    for (_, device, is_native, is_dense, _, step), members in parts.items():
        params, grads, *slots = ([column[i] for i in members] for column in columns)
        batch = Batch(
            params,
            grads,
            dict(zip(names, slots, strict=True)),
            states=[states[i] for i in members],
            step=step,
            counters=[counters[i] for i in members] if counters else [],
            dtype=dtype,
            device=device,
            native=is_native,
            dense=is_dense,
        )
        batches.append(batch)
    return batches


def init_state(p: Tensor, state: Any, hyper: Hyperparameters) -> None:
    """Initialize the entries that a parameter's state lacks."""
    held, algorithm = entries_of(state), hyper.algorithm
    fields = algorithm.state_type._fields
    missing = [name for name in fields if name not in held]
    if missing and len(missing) < len(fields):
        raise ValueError(f"Invalid state: {sorted(held)} (expected {missing} too)")
    with torch.inference_mode(False):  # inference tensors could not be written later
        if missing:
            made = algorithm.init(torch.empty_like(p.detach(), dtype=state_dtype(p.dtype)), xp=xp)._asdict()
            if "step" in made:
                # on the CPU, as in torch: counting on the device would cost a kernel
                device = p.device if hyper.capturable else "cpu"
                made["step"] = torch.zeros((), dtype=_get_scalar_dtype(), device=device)
            held.update(made)
        if "compensation" in tensor_names(hyper, p.dtype) and "compensation" not in held:
            held["compensation"] = torch.zeros_like(p, requires_grad=False)


def steps_before(counters: list[Any], hyper: Hyperparameters) -> list[float | None]:
    """Return the numbers of steps made before; None where they are not read."""
    native = set(map(type, counters)) <= {Tensor}
    if not native:
        check_tensors(["step"], [counters])
    if not all(map(torch.Tensor.is_floating_point, counters)):
        raise TypeError("Invalid state: step of an integer dtype (expected a floating-point dtype)")
    if not native or hyper.capturable or hyper.differentiable:  # reading a counter on a device waits for it
        return [None] * len(counters)
    steps = list(map(float, counters))
    if not all(0.0 <= k < math.inf for k in set(steps)):
        raise ValueError(f"Invalid state: steps {sorted(set(steps))} (expected finite numbers >= 0)")
    return steps  # type: ignore[return-value]


def placed_like(grad: Any, p: Any) -> Any:
    """Return a distributed gradient with the placements of its parameter."""
    if hasattr(p, "placements") and hasattr(grad, "placements") and grad.placements != p.placements:
        return grad.redistribute(placements=p.placements)
    return grad
