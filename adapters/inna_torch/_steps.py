"""One step of many tensors at once, in place: by the core's function on lists, or by torch's fused kernels."""

import math
from typing import Any

import torch

from inna_core.adamw_kernel import AdamWStep, GradientStep
from inna_core.weight_decay import update_with_decay
from inna_torch._lists import TORCH, Namespace, Tensors, Vector, blocks, update_in_place

BLOCKS = 42
"""How many blocks there should be on a CPU: two temporaries are at most 1/21 of the parameters."""
SMALLEST_BLOCK, LARGEST_BLOCK = 2**15, 2**22
"""Elements of a block on a CPU."""
ELSEWHERE = 2**25
"""Elements of a block on accelerators, which large blocks keep busy and which have no cache to reward small ones."""

FOREVER = torch.tensor(math.inf, dtype=torch.float32, device="cpu")


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
    scratch = columns[0][0].new_empty(largest(pieces) if size and columns[0][0].is_cpu else 0)
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
    if not all(map(torch.Tensor.is_contiguous, columns[0])):  # take them as they lie in memory
        columns = [[x.as_strided((x.numel(),), (1,)) for x in column] for column in columns]
    # in pieces that stay in the cache between the kernels, and so that what they leave there needs little memory
    pieces = blocks(columns, block_size(columns[0]))
    scratch = columns[0][0].new_empty(2, largest(pieces))
    for theta, grads, v, s in pieces:
        n = elements(v)
        x = unflatten(scratch[0, :n], v)
        TORCH._foreach_copy_(x, v)
        # the kernel adds 0 times the old first moment, which must be finite, and leaves the gradient there
        moments = unflatten(scratch[1, :n].zero_(), v)
        adamw_kernel(x, grads, moments, s, call, sigma)
        gradient_step(theta, x, call.parameter)
        if call.velocity is None:
            TORCH._foreach_mul_(v, call.shrink)
        else:
            gradient_step(v, x, call.velocity)


Part = tuple[slice, slice]
"""Some of a list of tensors, and their elements where the tensors lie side by side."""


def parts(tensors: Tensors) -> list[Part]:
    """Return the blocks to work on, of whole tensors."""
    found, first, start = [], 0, 0
    for (piece,) in blocks([tensors], max(block_size(tensors), max(map(torch.Tensor.numel, tensors)))):
        last, stop = first + len(piece), start + elements(piece)
        found.append((slice(first, last), slice(start, stop)))
        first, start = last, stop
    if len(found) > 1 and found[-1][1].stop - found[-1][1].start < 2:  # compiled code knows two elements and more
        (some, where), (rest, end) = found[-2:]
        found[-2:] = [(slice(some.start, rest.stop), slice(where.start, end.stop))]
    return found


def packed_adamw_kernel_step(
    call: AdamWStep, sigma: float, theta: Tensors, grads: Tensors, state: Tensors, pieces: list[Part]
) -> None:
    """Make a step of INNAprop as `adamw_kernel_step` does, where the state lies side by side in memory.

    On a CPU a kernel takes longer to be started for a small tensor than to run; here all but one run on whole blocks.

    Args:
        call: arguments of the kernels.
        sigma: decay of the second moment.
        theta: contiguous parameters of one dtype, on a CPU.
        grads: gradients, like them.
        state: velocities and second moments: two one-dimensional tensors, each as long as the parameters together.
        pieces: blocks of them.
    """
    lengths = [where.stop - where.start for _, where in pieces]
    for (some, _), v, s in zip(pieces, *(x.split_with_sizes(lengths) for x in state), strict=True):
        part, x, gradient = theta[some], v.clone(), flatten(grads[some])
        # the copy is left holding the first moment, which with the first decay rate 0 is the gradient itself
        adamw_kernel([x], [gradient], [gradient], [s], call, sigma)
        del gradient  # before the next one
        gradient_step(part, unflatten(x, part), call.parameter)
        if call.velocity is None:
            v.mul_(call.shrink)
        else:
            gradient_step([v], [x], call.velocity)


def block_size(tensors: Tensors) -> int:
    """Return how many elements to work on at a time, where that needs temporaries."""
    if not tensors[0].is_cpu:
        return ELSEWHERE
    return min(max(elements(tensors) // BLOCKS, SMALLEST_BLOCK), LARGEST_BLOCK)


def largest(pieces: list[list[Tensors]]) -> int:
    return max(elements(piece[0]) for piece in pieces)


def elements(tensors: Tensors) -> int:
    return sum(map(torch.Tensor.numel, tensors))


def flatten(tensors: Tensors) -> torch.Tensor:
    """Return a copy of contiguous tensors, side by side."""
    x = TORCH._utils._flatten_dense_tensors(tensors)
    return x if len(tensors) > 1 else x.clone()


def unflatten(memory: torch.Tensor, tensors: Tensors) -> Tensors:
    """Return pieces of memory, shaped as the tensors."""
    return TORCH._utils._unflatten_dense_tensors(memory, tensors)


def adamw_kernel(
    params: Tensors, grads: Tensors, moments: Tensors, squares: Tensors, call: AdamWStep, sigma: float
) -> None:
    """Call torch's AdamW kernel, its first decay rate 0; the tensors at the same position are alike in memory."""
    TORCH._fused_adamw_(
        *(params, grads, moments, squares, [], [FOREVER] * len(params)),
        lr=call.lr,
        beta1=0.0,
        beta2=sigma,
        weight_decay=0.0,
        eps=call.eps,
        amsgrad=False,
        maximize=False,
    )


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


def alike(columns: list[Tensors]) -> list[Tensors]:
    """Return lists of dense tensors, or of views of them, whose strides are equal at the same position.

    Along axes of length 0 and 1 strides mean nothing and may be anything, but CUDA's kernel compares them.
    """
    first, *others = (list(map(torch.Tensor.stride, column)) for column in columns)
    if all(strides == first for strides in others):
        return columns
    return [[x.view(-1) if x.is_contiguous() else x for x in column] for column in columns]


def sgd_devices() -> tuple[str, ...]:
    """Return the device types for which torch has its SGD kernel."""
    return ("cpu", "cuda", "mps") if hasattr(torch, "_fused_sgd_") else ()


def adamw_devices() -> tuple[str, ...]:
    """Return the device types on which torch's AdamW kernel does what `inna_core.adamw_kernel` asks of it.

    On CUDA it takes 1 - sigma in single precision, for sigma = 0.999 wrong by 1e-5 of it.
    """
    return ("cpu",) if hasattr(torch, "_fused_adamw_") and sgd_devices() else ()


def gathering_pays(device: str) -> bool:
    """Return whether small tensors are copied to one place, and back, in less time than work on each of them takes."""
    return device != "cpu"
