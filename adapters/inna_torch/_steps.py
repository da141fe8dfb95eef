"""One step of many tensors at once, in place: by the core's function on lists, or by torch's fused kernels."""

import math
from typing import Any

import torch

from inna_core.adamw_kernel import AdamWStep, GradientStep
from inna_core.decay import update_with_decay
from inna_torch._lists import TORCH, Namespace, Tensors, Vector, blocks, update_in_place

SMALLEST_BLOCK, LARGEST_BLOCK, BLOCKS = 2**15, 2**22, 48
"""Elements of a block, and how many blocks there should be: two temporaries are at most 1/24 of the parameters."""
SMALL = 2**14
"""Elements that are copied in the time of a call, or so."""


def foreach_step(
    algorithm: Any,
    columns: list[Tensors],
    k: float,
    lr: float,
    weight_decay: float,
    *,
    published: bool = False,
    maximize: bool = False,
) -> None:
    """Make a step with the core's function on lists of tensors.

    Args:
        algorithm: of `inna_core`, its hyperparameters floats.
        columns: parameters, gradients, and the fields of the state other than the step, in the state's order; tensors
            of one dtype and device.
        k: number of steps made before.
        lr: step size.
        weight_decay: rate of the decay.
        published: whether the decay acts on the velocity too.
        maximize: whether to ascend.
    """
    fields = algorithm.state_type._fields
    names = [name for name in fields if name != "step"]
    # an algorithm with a second moment takes its root, which has to be put somewhere
    size = block_size(columns[0]) if len(names) > 1 else 0
    pieces = blocks(columns, size) if size else [columns]
    scratch = columns[0][0].new_empty(largest(pieces) if size else 0)
    for theta, grad, *arrays in pieces:
        state: dict[str, Any] = dict(zip(names, map(Vector.of, arrays), strict=True))
        if "step" in fields:
            state["step"] = torch.tensor(k, dtype=theta[0].dtype, device="cpu")
        g = Vector.of(grad)
        delta, next_state = update_with_decay(
            algorithm,
            -g if maximize else g,
            algorithm.state_type(**state),
            Vector.of(theta),
            lr,
            weight_decay,
            published=published,
            xp=Namespace(arrays, scratch),
        )
        update_in_place(theta, delta, arrays, [getattr(next_state, name) for name in names])


def adamw_kernel_step(call: AdamWStep, sigma: float, columns: list[Tensors]) -> None:
    """Make a step of INNAprop with torch's AdamW and SGD kernels (`inna_core.adamw_kernel`).

    Args:
        call: arguments of the kernels.
        sigma: decay of the second moment.
        columns: parameters, gradients, velocities and second moments: tensors of one dtype and device, those at the
            same position dense and alike in memory.
    """
    # in pieces that stay in the cache between the kernels, and so that what they leave there needs little memory
    pieces = blocks(columns, block_size(columns[0]))
    scratch = columns[0][0].new_empty(2, largest(pieces))
    t = torch.tensor(math.inf, dtype=torch.float32, device="cpu")
    for theta, grads, v, s in pieces:
        x = started_at(v, scratch[0])
        # the kernel adds 0 times the old first moment, which must be finite, and leaves the gradient there
        moments = split_like(v, scratch[1, : sum(map(len, x))].zero_())
        TORCH._fused_adamw_(
            *(x, grads, moments, s, [], [t] * len(x)),
            lr=call.lr,
            beta1=0.0,
            beta2=sigma,
            weight_decay=0.0,
            eps=call.eps,
            amsgrad=False,
            maximize=False,
        )
        gradient_step(theta, x, call.parameter)
        if call.velocity is None:
            TORCH._foreach_mul_(v, call.shrink)
        else:
            gradient_step(v, x, call.velocity)


def block_size(tensors: Tensors) -> int:
    """Return how many elements to work on at a time, where that needs temporaries."""
    fraction = sum(x.numel() for x in tensors) // BLOCKS
    # an accelerator is kept busy by large blocks, and has no cache that would reward small ones
    most = LARGEST_BLOCK if tensors[0].is_cpu else 8 * LARGEST_BLOCK
    return min(max(fraction, SMALLEST_BLOCK), most)


def largest(pieces: list[list[Tensors]]) -> int:
    return max(sum(p.numel() for p in piece[0]) for piece in pieces)


def started_at(start: Tensors, scratch: torch.Tensor) -> Tensors:
    """Return copies of dense tensors, one-dimensional as they lie in memory, in a common piece of memory."""
    copies = split_like(start, scratch)
    whole = scratch[: sum(map(len, copies))]
    if len(whole) > SMALL * len(copies):
        for copy, x in zip(copies, start, strict=True):
            copy.copy_(x.as_strided(copy.shape, (1,)))
    else:  # calls cost more than memory: take one that copies them all
        whole.zero_()
        gradient_step(copies, start, GradientStep(-1.0, 0.0))
    return copies


def split_like(tensors: Tensors, memory: torch.Tensor) -> Tensors:
    """Return pieces of memory, one-dimensional, as large as the tensors."""
    sizes = [x.numel() for x in tensors]
    return list(memory[: sum(sizes)].split_with_sizes(sizes))


def gradient_step(y: Tensors, x: Tensors, step: GradientStep) -> None:
    """Apply torch's SGD kernel, without momentum, to dense tensors."""
    sgd_kernel(y, x, [], lr=step.lr, weight_decay=step.weight_decay)


def sgd_kernel(
    params: Tensors,
    grads: Tensors,
    buffers: Tensors,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    """Call torch's SGD kernel; the tensors at the same position are dense and alike in memory."""
    TORCH._fused_sgd_(
        *(params, grads, buffers),
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=dampening,
        nesterov=nesterov,
        maximize=maximize,
        is_first_step=False,
    )


def alike(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor, or a view of it, whose strides follow from its shape.

    Along axes of length 0 and 1 strides mean nothing and may be anything, but CUDA's kernel compares them.
    """
    return x.view(-1) if (0 in x.shape or 1 in x.shape) and x.is_contiguous() else x


def sgd_devices() -> tuple[str, ...]:
    """Return the device types for which torch has its SGD kernel."""
    return ("cpu", "cuda", "mps") if hasattr(torch, "_fused_sgd_") else ()


def adamw_devices() -> tuple[str, ...]:
    """Return the device types on which torch's AdamW kernel is known to do what `inna_core.adamw_kernel` asks of it."""
    return ("cpu",) if hasattr(torch, "_fused_adamw_") and sgd_devices() else ()
