"""What the parameters of a group that are updated alike have in common, gathered and checked before a step."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import chain, compress
from operator import attrgetter
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.optim.optimizer import _get_scalar_dtype

from inna_torch._hyperparameters import Hyperparameters
from inna_torch._scaled_state import ScaledState
from inna_torch._tensors import (
    LOW_PRECISION,
    NATIVE_TENSOR_TYPES,
    TORCH,
    Tensor,
    Tensors,
    is_expanded,
    local_shard,
    same_dense_layout,
    state_dtype,
)

LAYOUT, SHAPE, DTYPE, DEVICE, IS_CPU = map(attrgetter, ("layout", "shape", "dtype", "device", "is_cpu"))
CONTIGUOUS: Callable[[Tensor], bool] = torch.Tensor.is_contiguous
ONE = torch.tensor(1.0, device="cpu")


@dataclass(slots=True)
class Batch:
    """Parameters of a group that have dtype, device and number of steps in common, with what belongs to them.

    Attributes:
        params: the tensors to update: real views of complex parameters, this rank's shards of distributed ones.
        grads: their gradients, shapes as the parameters.
        slots: the other tensors of their states but for the step, by name, likewise.
        states: the parameters' states: plain dicts, or all of them `ScaledState`.
        step: number of steps made before, 0 where the algorithm does not count; None where only the device knows it.
        dtype: of the parameters.
        grad_dtype: of the gradients.
        device: of all tensors but the counters.
        native: whether no tensor is of a subclass, which multi-tensor calls and compiled code may not know.
        dense: whether each parameter, its gradient and slots fill memory in the same order, without gaps.
    """

    params: Tensors
    grads: Tensors
    slots: dict[str, Tensors]
    states: list[Any]
    step: float | None
    dtype: torch.dtype
    grad_dtype: torch.dtype
    device: torch.device
    native: bool
    dense: bool

    @property
    def columns(self) -> list[Tensors]:
        return [self.params, self.grads, *self.slots.values()]

    @property
    def scaled(self) -> bool:
        """Whether the velocities may be held times a factor."""
        return type(self.states[0]) is ScaledState

    def count_step(self) -> None:
        """Add one to the counters of steps, if the algorithm has them, and drop compensations that are out of use."""
        for state in self.states if "compensation" not in self.slots else ():
            entries(state).pop("compensation", None)
        if "step" in entries(self.states[0]):
            steps = [entries(state)["step"] for state in self.states]
            # a number would be made a tensor for each of them; tensor subclasses know numbers only
            TORCH._foreach_add_(steps, ONE if type(steps[0]) in NATIVE_TENSOR_TYPES else 1.0)


def entries(state: Any) -> dict[str, Any]:
    """Return a parameter's state as it is held, whatever the scale of its velocity."""
    return state.entries if type(state) is ScaledState else state


def slot_names(hyper: Hyperparameters, dtype: torch.dtype) -> list[str]:
    """Return the entries of a state that hold a tensor like the parameter."""
    names = [name for name in hyper.algorithm.state_type._fields if name != "step"]
    compensated = dtype in LOW_PRECISION if hyper.kahan_sum is None else hyper.kahan_sum
    return [*names, "compensation"] if compensated else names


def gather(params: Tensors, states: Mapping[Tensor, Any], hyper: Hyperparameters) -> list[Batch]:
    """Return the batches of a param group, of the parameters that have a gradient; missing states are made.

    Args:
        params: the group's parameters.
        states: the optimizer's, a defaultdict.
        hyper: of the group.

    Raises:
        RuntimeError: if a gradient is sparse, or a parameter cannot be written in place.
        TypeError, ValueError: if a gradient or a state does not fit its parameter.
    """
    params = [p for p in params if p.grad is not None]
    batches = []
    for dtype, (own,) in partition(map(DTYPE, params), params):
        batches += _gather_dtype(own, dtype, states, hyper)
    return batches


def partition(keys: Any, *columns: list[Any]) -> list[tuple[Any, list[list[Any]]]]:
    """Split parallel lists by key."""
    keys = list(keys)
    distinct = dict.fromkeys(keys)
    if len(distinct) == 1:
        return [(keys[0], list(columns))]
    return [(key, [list(compress(column, [k == key for k in keys])) for column in columns]) for key in distinct]


def _gather_dtype(
    owners: Tensors, dtype: torch.dtype, states: Mapping[Tensor, Any], hyper: Hyperparameters
) -> list[Batch]:
    own_states = [states[p] for p in owners]
    names = slot_names(hyper, dtype.to_real())
    slots = _slots(owners, own_states, names, hyper)
    steps = _steps(own_states, hyper)

    grads: list[Any] = [p.grad for p in owners]
    columns: list[Tensors] = [owners, grads, *slots.values()]
    native = NATIVE_TENSOR_TYPES.issuperset(map(type, chain(*columns)))
    if not native:
        grads = [placed_like(g, p) for g, p in zip(grads, owners, strict=True)]
        columns = [list(map(local_shard, column)) for column in (owners, grads, *slots.values())]
    _check_params(columns[0], hyper)
    _check_grads(columns[1], columns[0])
    for name, column in zip(slots, columns[2:], strict=True):
        wanted = dtype if name == "compensation" else state_dtype(dtype.to_real())
        _check_slot(name, column, columns[0], wanted.to_complex() if dtype.is_complex else wanted)
    if dtype.is_complex:
        columns = [list(map(torch.view_as_real, column)) for column in columns]
        dtype = dtype.to_real()
    params, grads, *rest = columns

    if all(map(CONTIGUOUS, chain(*columns))):
        dense = [True] * len(params)
    else:
        dense = [all(same_dense_layout(x, row[0]) for x in row) for row in zip(*columns, strict=True)]
    types: Any = [True] * len(params) if native else _native_rows(columns)
    devices = [params[0].device] * len(params) if all(map(IS_CPU, params)) else map(DEVICE, params)
    keys = zip(map(DTYPE, grads), devices, types, dense, map(type, own_states), steps, strict=True)
    return [
        Batch(
            own_params,
            own_grads,
            dict(zip(names, own_slots, strict=True)),
            members,
            step,
            dtype,
            grad_dtype,
            device,
            is_native,
            is_dense,
        )
        for (grad_dtype, device, is_native, is_dense, _, step), (members, own_params, own_grads, *own_slots) in (
            partition(keys, own_states, params, grads, *rest)
        )
    ]


def _slots(owners: Tensors, states: list[Any], names: list[str], hyper: Hyperparameters) -> dict[str, Tensors]:
    """Return the states' tensors like their parameters, by name; what is missing is made."""
    held = [entries(state) for state in states]
    try:
        return {name: [x[name] for x in held] for name in names}
    except KeyError:
        for p, state in zip(owners, states, strict=True):
            init_state(p, state, hyper)
        return {name: [x[name] for x in held] for name in names}


def init_state(p: Tensor, state: MutableMapping[str, Any], hyper: Hyperparameters) -> None:
    """Make the entries that a parameter's state lacks, as before the first step.

    Raises:
        ValueError: if it has some of the algorithm's entries only.
    """
    held, algorithm = entries(state), hyper.algorithm
    fields = algorithm.state_type._fields
    real = torch.view_as_real(p.detach()) if p.is_complex() else p.detach()
    missing = [name for name in fields if name not in held]
    if missing and len(missing) < len(fields):
        raise ValueError(f"Invalid state: {sorted(held)} (expected {missing} too)")
    with torch.inference_mode(False):  # what is made in inference mode could not be written later
        if missing:
            made = algorithm.init(torch.empty_like(real, dtype=state_dtype(real.dtype)), xp=xp)._asdict()
            if p.is_complex():
                made = {name: x if name == "step" else torch.view_as_complex(x) for name, x in made.items()}
            if "step" in made:
                # where torch keeps it: counting on the device would cost a kernel
                device = p.device if hyper.capturable else "cpu"
                made["step"] = torch.zeros((), dtype=_get_scalar_dtype(), device=device)
            held.update(made)
            if type(state) is ScaledState:
                state.scale = 1.0
        if "compensation" in slot_names(hyper, real.dtype) and "compensation" not in held:
            held["compensation"] = torch.zeros_like(p, requires_grad=False)


def _steps(states: list[Any], hyper: Hyperparameters) -> list[float | None]:
    """Return the numbers of steps made before; 0 where the algorithm does not count, None where only a device knows."""
    if "step" not in hyper.algorithm.state_type._fields:
        return [0.0] * len(states)
    steps = [entries(state).get("step") for state in states]
    for step in steps:
        if not isinstance(step, Tensor):
            raise TypeError(f"Invalid state: step is {step!r} (expected a tensor)")
    # reading a counter on a device waits for it, and autograd may want the one that there is
    return [None] * len(steps) if hyper.capturable or hyper.differentiable else list(map(float, steps))  # type: ignore[arg-type]


def placed_like(grad: Any, p: Any) -> Any:
    """Return a distributed gradient with the placements of its parameter."""
    if hasattr(p, "placements") and hasattr(grad, "placements") and grad.placements != p.placements:
        return grad.redistribute(placements=p.placements)
    return grad


def _native_rows(columns: list[Tensors]) -> Iterator[bool]:
    return (NATIVE_TENSOR_TYPES.issuperset(map(type, row)) for row in zip(*columns, strict=True))


def _check_params(params: Tensors, hyper: Hyperparameters) -> None:
    if hyper.capturable and any(map(IS_CPU, params)):
        raise RuntimeError("Invalid capturable: True (expected False for parameters on cpu)")
    if hyper.differentiable and any(p.requires_grad and p.is_leaf for p in params):
        raise RuntimeError(
            "Invalid params: a leaf that requires gradients (expected tensors computed from others, such as p.clone(), "
            "where differentiable is True)"
        )
    if not all(map(CONTIGUOUS, params)):
        _check_writable("params", params)


def _check_writable(name: str, tensors: Tensors) -> None:
    for x in tensors:
        if is_expanded(x):
            raise RuntimeError(
                f"Invalid {name}: an expanded tensor of shape {tuple(x.shape)} and strides {x.stride()} (expected one "
                "whose elements do not share memory, such as x.clone())"
            )


def _check_grads(grads: Tensors, params: Tensors) -> None:
    for layout in set(map(LAYOUT, grads)) - {torch.strided}:
        raise RuntimeError(f"Invalid grad: layout {layout} (expected torch.strided: sparse gradients are not supported)")
    shapes = list(map(SHAPE, params))
    if list(map(SHAPE, grads)) != shapes:
        shape, expected = next((g.shape, s) for g, s in zip(grads, shapes, strict=True) if g.shape != s)
        raise ValueError(f"Invalid grad: shape {tuple(shape)} (expected {tuple(expected)}, as the parameter)")
    if not (all(map(IS_CPU, params)) and all(map(IS_CPU, grads))):
        for g, p in zip(grads, params, strict=True):
            if g.device != p.device:
                raise ValueError(f"Invalid grad: on {g.device} (expected {p.device}, as the parameter)")
    is_complex = params[0].is_complex()
    for dtype in set(map(DTYPE, grads)):
        if dtype.is_complex != is_complex or not (dtype.is_complex or dtype.is_floating_point):
            kind = "complex" if is_complex else "real floating-point"
            raise TypeError(f"Invalid grad: dtype {dtype} (expected a {kind} dtype, as the parameter's)")


def _check_slot(name: str, column: Tensors, params: Tensors, dtype: torch.dtype) -> None:
    for x in column if not NATIVE_TENSOR_TYPES.issuperset(map(type, column)) else ():
        if not isinstance(x, Tensor):
            raise TypeError(f"Invalid state: {name} is {x!r} (expected a tensor)")
    if (
        list(map(SHAPE, column)) != list(map(SHAPE, params))
        or not (all(map(IS_CPU, column)) and all(map(IS_CPU, params)))
        and list(map(DEVICE, column)) != list(map(DEVICE, params))
    ):
        x, p = next((x, p) for x, p in zip(column, params, strict=True) if (x.shape, x.device) != (p.shape, p.device))
        raise ValueError(
            f"Invalid state: {name} of shape {tuple(x.shape)} on {x.device} (expected {tuple(p.shape)} on {p.device}, "
            "as the parameter)"
        )
    for found in set(map(DTYPE, column)) - {dtype}:
        raise TypeError(
            f"Invalid state: {name} of dtype {found} (expected {dtype} beside a {params[0].dtype} parameter)"
        )
    if not all(map(CONTIGUOUS, column)):
        _check_writable(f"state: {name}", column)
