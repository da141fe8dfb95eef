"""One step of one tensor by the core's function: operation by operation, or compiled into one loop over memory."""

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import array_api_compat.torch as xp
import torch

from inna_core.compensation import compensated_increment
from inna_core.weight_decay import update_with_decay

Tensor = torch.Tensor

NARROW = (torch.float16, torch.bfloat16)
THETA = "theta"


def compute_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state and arithmetic."""
    return torch.float32 if p.dtype in NARROW else p.dtype


def next_values(
    algorithm: Any,
    p: Tensor,
    g: Tensor,
    stored: dict[str, Tensor],
    lr: Any,
    weight_decay: Any,
    *,
    published: bool,
    maximize: bool,
) -> dict[str, Tensor]:
    """Return the next parameter, under the name `THETA`, and the next entries of its state; nothing is changed.

    Args:
        algorithm: of `inna_core`.
        p: parameter.
        g: gradient, of any floating-point dtype.
        stored: the fields of the algorithm's state; with a ``compensation`` the sum is compensated.
        lr: step size, a float or a 0-d tensor.
        weight_decay: rate of the decay, likewise.
        published: whether the decay acts on the velocity too.
        maximize: whether to ascend.
    """
    dtype = compute_dtype(p)
    grad, theta = g.to(dtype), p.to(dtype)
    compensation = stored["compensation"].to(dtype) if "compensation" in stored else None
    delta, state = update_with_decay(
        algorithm,
        -grad if maximize else grad,
        algorithm.state_type(**{name: stored[name].to(dtype) for name in algorithm.state_type._fields}),
        theta if compensation is None else theta + compensation,
        lr,
        weight_decay,
        published=published,
        xp=xp,
    )
    new: dict[str, Tensor] = state._asdict()
    if compensation is not None:
        delta, new["compensation"] = compensated_increment(delta, compensation, theta, lambda x: rounded(x, p.dtype))
    return {THETA: theta + delta, **new}


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in the precision of a narrow dtype, in its own dtype."""
    if torch.compiler.is_compiling() and dtype in NARROW:
        return rounded_by_bits(x, dtype)  # inductor drops a cast and the cast back, and with them the rounding
    return x.to(dtype).to(x.dtype)


def rounded_by_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a float32 tensor in the precision of a narrow dtype, ties to even, without a cast to that dtype."""
    spare = 16 if dtype == torch.bfloat16 else 13  # bits of the fraction that the dtype does not have
    bits = x.view(torch.int32)
    odd = (bits & 2**spare).clamp(max=1)  # no shift: that of a DTensor does nothing in torch 2.13
    bits = (bits + (2 ** (spare - 1) - 1) + odd) & -(2**spare)
    y = bits.view(torch.float32)
    if dtype == torch.float16:
        limits = torch.finfo(dtype)
        # below the normal numbers, multiples of 2^-24, which is the spacing of float32 at 3/4
        y = torch.where(x.abs() < limits.smallest_normal, (x + 0.75) - 0.75, y)
        y = torch.where(y.abs() > limits.max, y * torch.inf, y)
    return torch.where(x != x, x, y)  # NaN; inductor would not vectorize isnan


@dataclass(frozen=True)
class CompiledStep:
    """A step of one tensor in one pass over memory, compiled for tensors of all lengths.

    Attributes:
        names: entries of a parameter's state that it updates.
        run: function of a zip of calls; each is a tuple of the step's `packed_numbers`, the parameter, the gradient,
            and those entries: dense one-dimensional tensors of two elements or more, updated in place.
    """

    names: tuple[str, ...]
    run: Callable[[Iterator[tuple[Tensor, ...]]], None]


def compiled_step(
    kind: type, names: tuple[str, ...], dtype: torch.dtype, device: torch.device, published: bool, maximize: bool
) -> CompiledStep:
    """Return a compiled step that has run, on zeros.

    Args:
        kind: class of the algorithm.
        names: entries of the parameter's state other than the step.
        dtype: of the parameter.
        device: of the parameter.
        published: whether the decay acts on the velocity too.
        maximize: whether to ascend.

    Raises:
        RuntimeError: if it cannot be compiled.
    """
    try:
        call = compiled_loop(kind, names, dtype, device, published, maximize)
        # Each time, since torch.compile may have to start anew: after other numbers of threads, under autocast, ...
        run_once(call, zeros(kind, names, dtype, device, length=2))
    except Exception as error:
        raise RuntimeError(
            f"Invalid compiled: True (expected False where torch.compile cannot build {kind.__name__}): {error}"
        ) from error
    return call


def run_once(call: CompiledStep, arguments: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        call.run(iter([arguments]))


@functools.cache
def zeros(
    kind: type, names: tuple[str, ...], dtype: torch.dtype, device: torch.device, length: int
) -> tuple[Tensor, ...]:
    """Return arguments of a compiled step that it leaves zero."""
    with torch.inference_mode(False):  # its tensors could not be written later
        p = torch.zeros(length, dtype=dtype, device=device)
        arrays = [torch.zeros_like(p, dtype=dtype if n == "compensation" else compute_dtype(p)) for n in names]
        return packed_numbers(kind(), 0.0, 0.0, 0.0, device), p, torch.zeros_like(p), *arrays


@functools.cache
def compiled_loop(
    kind: type, names: tuple[str, ...], dtype: torch.dtype, device: torch.device, published: bool, maximize: bool
) -> CompiledStep:
    def step(numbers: Tensor, p: Tensor, g: Tensor, *arrays: Tensor) -> None:
        k, lr, weight_decay, *hyper = numbers.unbind()
        stored = dict(zip(names, arrays, strict=True))
        if "step" in kind.state_type._fields:  # type: ignore[attr-defined]
            stored["step"] = k
        new = next_values(kind(*hyper), p, g, stored, lr, weight_decay, published=published, maximize=maximize)
        p.copy_(new[THETA])
        for name, x in zip(names, arrays, strict=True):
            x.copy_(new[name])

    # Entering compiled code takes longer than a small step. So it is entered once for all calls, by a function that is
    # not to be compiled itself: it would become one large graph for just this list of tensors.
    @torch.compiler.disable(recursive=False)
    def each(calls: Iterator[tuple[Tensor, ...]]) -> None:
        for call in calls:
            step(*call)

    def enter(calls: Iterator[tuple[Tensor, ...]]) -> None:
        each(calls)

    for function in step, enter:
        # a code object of its own: torch.compile counts the graphs of each, and gives up beyond eight
        function.__code__ = function.__code__.replace(co_name=f"{kind.__name__}_{function.__name__}")
    with warnings.catch_warnings():  # here only, since it makes Python forget which warnings it has shown
        warnings.simplefilter("ignore")  # torch's own imports
        call = CompiledStep(names, torch.compile(enter, dynamic=True))
        # a length for which threads are worth while; not to be kept
        run_once(call, zeros.__wrapped__(kind, names, dtype, device, length=2**20))
    return call


def packed_numbers(algorithm: Any, k: float, lr: float, weight_decay: float, device: torch.device) -> Tensor:
    """Return the numbers of a step in one tensor.

    They are data of the compiled function, so that new ones need no other; in double precision, whatever the arrays'.
    """
    return torch.tensor([k, lr, weight_decay, *astuple(algorithm)], dtype=torch.float64, device=device)
