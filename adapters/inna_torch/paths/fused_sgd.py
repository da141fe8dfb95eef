"""INNA on torch's fused SGD kernel, as a step with Nesterov momentum.

The kernel keeps a buffer b and, for a gradient h, does in one pass over memory

    b'     = m b + (1 - d) h
    theta' = theta - L (h + m b')           with Nesterov's look-ahead; without it  theta' = theta - L b'

Give it h = e g with a sign e = +-1, and let b = s v hold INNA's velocity times a scale that may change from s to s' > 0
with each step. With r = 1 - alpha gamma and c = gamma (1 - alpha beta), so that v' = r v - c g, comparing the
coefficients of v and g with INNA's gives

    e = -sign(r (beta - gamma))             s'^2 = s / |r (beta - gamma)|
    m = r s' / s                            1 - d = -e c s'               L = -gamma |beta - gamma| / |r|

so one kernel call is one step of INNA, for any schedule of gamma. With constant gamma the scale
s = 1 / |r (beta - gamma)| stays constant. At gamma = beta the step needs no look-ahead and any scale does:

    e = 1       s' = s       m = r       1 - d = -c s       L = -gamma / (r s)       theta' = theta + (gamma / r) v'

At r = 0 the new velocity does not contain v, so the kernel cannot make theta' from it. If the buffer must hold v
itself, the gradient is added first, theta - (gamma (beta - gamma) / r) g, and the kernel runs without look-ahead as for
gamma = beta, with the scale s = s' = 1.

`kernel_step` returns None unless three conditions hold:

1. Rounding is not amplified. The kernel makes theta' from v', so the rounding error of c g reaches theta times
   gamma / |r|. Both |c| gamma / |r| and L may be at most `MAX_AMPLIFICATION` times gamma beta, by which the gradient is
   multiplied anyway.
2. 1 - d is accurate. The kernel takes d in double (on CUDA, single) precision and subtracts it from 1; c s' must be so
   large that the error is within the rounding of the arrays' dtype.
3. s v does not overflow: s and s' are at most the square root of the dtype's largest number.

Reference for the kernel's form: I. Sutskever, J. Martens, G. Dahl, G. Hinton. On the importance of initialization and
momentum in deep learning. ICML 2013. The identity is elementary algebra on the recurrence in `inna_core.inna`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from inna_core.coefficients import Coefficients
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import TORCH, Tensors, blocks, local_shard

MAX_AMPLIFICATION = 2.0
DECAY_BLOCK_NUMEL = 2**20
"""Elements of a block that stays in the shared cache of a CPU."""
DEVICES = ("cpu", "cuda", "mps")
"""Device types for which torch has the kernel."""


class KernelStep(NamedTuple):
    """One step of INNA, in the symbols above.

    Attributes:
        arguments: of the kernel.
        scale, new_scale: s and s', of the velocity in the buffer before the step and after it.
        gradient: factor of the gradient that is added to the parameter before the kernel runs; 0 for none.
    """

    arguments: dict[str, Any]
    scale: float
    new_scale: float
    gradient: float


def arguments(lr: float, **others: float) -> dict[str, Any]:
    """Return the kernel's arguments for a plain gradient step, with `others` in place of the defaults."""
    plain = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
    return {**plain, "lr": lr, **others, "is_first_step": False}


@functools.lru_cache(maxsize=256)
def kernel_step(
    by: Coefficients,
    scale: float | None = None,
    scaled: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    maximize: bool = False,
) -> KernelStep | None:
    """Return the kernel's arguments for one step of INNA, or None where it cannot make the step accurately.

    Args:
        by: coefficients of INNA's step.
        scale: s > 0, of the velocity in the buffer; None for the one that a constant lr keeps.
        scaled: False where the buffer holds the velocity itself.
        dtype: of the tensors.
        device: type of their device.
        maximize: whether to ascend.

    Example:
        >>> theta, v, g = 2.0, 1.0, 0.5
        >>> from inna_core import INNA
        >>> by = INNA(alpha=0.5, beta=0.1).coefficients(0.02)
        >>> step = kernel_step(by, scale=1.0)
        >>> m, d, lr, maximizes = (step.arguments[name] for name in ("momentum", "dampening", "lr", "maximize"))
        >>> h = -g if maximizes else g
        >>> b = m * v + (1 - d) * h
        >>> round(theta - lr * (h + m * b), 12)  # theta + gamma (v - beta g)
        2.019
        >>> round(b / step.new_scale, 12)  # (1 - alpha gamma) v - gamma (1 - alpha beta) g
        0.9805
    """
    gamma, beta, alpha_gamma, alpha_beta = by
    on_cpu = device == "cpu"
    scalar_eps = 2.0**-24 if dtype == torch.float32 and not on_cpu else 2.0**-53
    r, c, gap = 1 - alpha_gamma, gamma * (1 - alpha_beta), beta - gamma
    if r == 0.0 or max(abs(c), abs(gap)) > MAX_AMPLIFICATION * beta * abs(r):
        return None
    size = abs(r * gap)
    if gap == 0.0 or not scaled:
        s = s_next = (scale or 1 / (abs(c) or 1.0)) if scaled else 1.0  # 1 - d is exact with the second
        own = arguments(-gamma / (r * s), momentum=r, dampening=1 + c * s, maximize=maximize)
    else:
        e, s = -math.copysign(1.0, r * gap), scale or 1 / size
        s_next = math.sqrt(s / size)
        own = arguments(-gamma * abs(gap / r), momentum=r * s_next / s, dampening=1 + e * c * s_next)
        own |= {"nesterov": True, "maximize": (e < 0) != maximize}
    info = torch.finfo(dtype)
    if (c != 0.0 and abs(c) * s_next * info.eps < scalar_eps) or max(s, s_next) > math.sqrt(info.max):
        return None
    # on accelerators the kernel demands a positive momentum, so no alpha * lr of 1 or more
    gradient = 0.0 if own["nesterov"] else -gamma * gap / r
    step = KernelStep(own, s, s_next, -gradient if maximize else gradient)
    return step if on_cpu or own["momentum"] > 0 else None


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path would be inaccurate or does not apply."""
    device = batch.device.type
    if not (batch.suits_kernels and hyper.on_host and device in DEVICES) or (hyper.capturable and batch.scaled):
        return None
    first_scale = batch.states[0].scale if batch.scaled else None
    for scale in (first_scale, None):
        step = kernel_step(hyper.coefficients, scale, batch.scaled, batch.dtype, device, hyper.maximize)
        if step is not None:
            return functools.partial(run, step, batch, hyper)
    return None


def run(step: KernelStep, batch: Batch, hyper: Hyperparameters) -> None:
    velocities = scaled_velocities(batch, step.scale) if batch.scaled else batch.slots["velocity"]
    columns = [batch.params, batch.grads, velocities]
    if batch.device.type != "cpu":
        parts = [equal_strides(columns)]
    elif hyper.weight_decay:  # decay is a separate pass: in blocks, parameters are still in the cache for the next one
        parts = blocks(columns, DECAY_BLOCK_NUMEL, shared=DECAY_BLOCK_NUMEL)
    else:
        parts = [columns]
    for params, grads, buffers in parts:
        if hyper.weight_decay:
            decay(hyper, params, buffers, step.scale)
        if step.gradient:
            TORCH._foreach_add_(params, grads, alpha=step.gradient)
        TORCH._fused_sgd_(params, grads, buffers, **step.arguments)
    if step.new_scale != step.scale:
        for state in batch.states:
            state.scale = step.new_scale


def decay(hyper: Hyperparameters, params: Tensors, buffers: Tensors, scale: float) -> None:
    """Apply decoupled weight decay (`inna_core.weight_decay`) to parameters and to velocities times a scale."""
    shrink = hyper.lr * hyper.weight_decay
    if hyper.published_decay:
        _, beta, _, alpha_beta = hyper.coefficients
        TORCH._foreach_add_(buffers, params, alpha=-shrink * (1 - alpha_beta) / beta * scale)
    if params[0].is_cpu:
        # for small tensors this is faster on a CPU than _foreach_mul_
        TORCH._fused_sgd_(params, params, [], **arguments(shrink))
    else:
        TORCH._foreach_mul_(params, 1 - shrink)


def scaled_velocities(batch: Batch, scale: float) -> Tensors:
    """Scale the velocities in the states, and return them."""
    if {state.scale for state in batch.states} == {scale}:
        return batch.slots["velocity"]
    buffers = []
    for state, velocity in zip(batch.states, batch.slots["velocity"], strict=True):
        if state.scale is None:  # the tensor may be referenced elsewhere
            with torch.inference_mode(False):
                state.entries["velocity"] = state.entries["velocity"] * scale
            velocity = local_shard(state.entries["velocity"])
            velocity = torch.view_as_real(velocity) if velocity.is_complex() else velocity
        elif state.scale != scale:
            velocity.mul_(scale / state.scale)
        state.scale = scale
        buffers.append(velocity)
    return buffers


def equal_strides(columns: list[Tensors]) -> list[Tensors]:
    """Return lists of dense tensors, or of views of them, whose strides are equal at the same position.

    Strides along axes of length 0 and 1 may be anything, but CUDA's kernel compares them.
    """
    first, *others = (list(map(torch.Tensor.stride, column)) for column in columns)
    if all(strides == first for strides in others):
        return columns
    return [[x.view(-1) if x.is_contiguous() else x for x in column] for column in columns]
