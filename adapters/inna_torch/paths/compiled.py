"""The core's own update, compiled by inductor into one loop over memory, once for tensors of all lengths."""

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from inna_core.coefficients import Coefficients
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import Tensor, state_dtype, update_in_blocks
from inna_torch.paths.single import next_values, rounded_by_bits

TRACED_NUMEL = 2**20
"""Elements of the tensors that are traced: inductor lets a CPU's threads share loops that it expects to be long."""

LOCK = threading.Lock()
"""Inductor compiles in one thread at a time."""


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path does not apply.

    Raises:
        RuntimeError: if the update cannot be compiled.
    """
    if not (hyper.compiled and hyper.on_host and batch.native and batch.dense) or batch.step is None:
        return None
    named = hyper.numbers()
    with LOCK:
        update = compiled_update(
            type(hyper.algorithm),
            tuple(named),
            tuple(batch.slots),
            batch.dtype,
            batch.grads[0].dtype,
            batch.device,
            hyper.published_decay,
            hyper.maximize,
            torch.get_num_threads(),
        )
    # inputs in double precision, so that other values need no recompilation
    by = hyper.coefficients if hasattr(hyper.algorithm, "coefficients") else ()
    numbers = torch.tensor([batch.step, *named.values(), *by], dtype=torch.float64, device=batch.device)

    def run() -> None:
        update_in_blocks(lambda row: update(numbers, *row), batch.columns, largest=2**30)

    return run


@functools.cache
def compiled_update(
    algorithm: Any,
    names: tuple[str, ...],
    slot_names: tuple[str, ...],
    dtype: torch.dtype,
    grad_dtype: torch.dtype,
    device: torch.device,
    published: bool,
    maximize: bool,
    threads: int,
) -> Callable[..., Any]:
    """Return the update of one flat tensor, for a number of threads that share its loop on a CPU.

    Its arguments are the numbers (steps made before, the hyperparameters of these names, and the coefficients of a step
    if the algorithm has them; float64), the parameter, the gradient and the slots: dense one-dimensional tensors of
    one length, whichever. The parameter and the slots are updated in place.
    """
    by = len(Coefficients._fields) if hasattr(algorithm, "coefficients") else 0

    def update(numbers: Tensor, p: Tensor, g: Tensor, *slots: Tensor) -> None:
        k, *values = numbers.unbind()
        own = dict(zip(names, values, strict=False))
        # the coefficients' square roots in the loop would cost several per cent
        kind = with_coefficients(algorithm, Coefficients(*values[-by:])) if by else algorithm
        hyper = Hyperparameters(kind(), 0.0, 0.0, published_decay=published, maximize=maximize)
        state = {**dict(zip(slot_names, slots, strict=True)), "step": k}
        theta, new = next_values(hyper, own, p, g, state, rounded_by_bits)
        p.copy_(theta)
        for name, slot in zip(slot_names, slots, strict=True):
            slot.copy_(new[name])

    def zeros(dtype: torch.dtype) -> Tensor:
        return torch.zeros(TRACED_NUMEL, dtype=dtype, device=device)

    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own imports
            slots = [zeros(dtype if name == "compensation" else state_dtype(dtype)) for name in slot_names]
            numbers = torch.zeros(1 + len(names) + by, dtype=torch.float64, device=device)
            arguments = [numbers, zeros(dtype), zeros(grad_dtype), *slots]
            # torch.compile would check its guards at each call, which takes longer than a step of a small tensor
            traced = make_fx(update, tracing_mode="symbolic")(*arguments)
            symbolic = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
            compiled: Any = torch._inductor.compile(traced, symbolic)
            compiled(*arguments)  # compiles the rest
    except Exception as error:
        raise RuntimeError(
            f"Invalid compiled: True (expected False where inductor cannot compile {algorithm.__name__}): {error}"
        ) from error
    return compiled


def with_coefficients(algorithm: Any, by: Coefficients) -> Any:
    """Return a subclass of the algorithm whose steps use these precomputed coefficients."""
    return type(algorithm.__name__, (algorithm,), {"coefficients": lambda *_: by})
