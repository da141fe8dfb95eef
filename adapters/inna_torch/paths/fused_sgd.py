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
s = 1 / |r (beta - gamma)| stays what it is. At gamma = beta the step needs no look-ahead, theta' = theta + (gamma / r) v',
and any scale does:

    e = 1       s' = s       m = r       1 - d = -c s       L = -gamma / (r s)

At r = 0 the velocity forgets v, from which theta' cannot then be made.

Where the buffer must hold v itself, the kernel makes a step of INNA from

    theta - (gamma (beta - gamma) / r) g

without look-ahead, with the scale s = s' = 1 of gamma = beta.

Decoupled weight decay is applied before: theta and, as published, v are changed by a multiple of theta
(`inna_core.weight_decay`).

| symbol | meaning                                          | name in code         |
|--------|--------------------------------------------------|----------------------|
| m      | the kernel's momentum                            | ``momentum``         |
| d      | its dampening                                    | ``dampening``        |
| L      | its learning rate; negative here                 | ``lr``               |
| e      | -1: the kernel maximizes                         | ``maximize``         |
| s, s'  | scale of its buffer before and after the step    | ``scale, new_scale`` |

Two things limit the accuracy, and there is no step beyond them. The kernel makes theta' from v', so the rounding of c g
reaches theta multiplied by gamma / |r|: that, and L, may be at most `MAX_AMPLIFICATION` times gamma beta, which the
gradient is multiplied by anyway. And its argument is d, not 1 - d, in double (on CUDA, single) precision: c s' must be
so large that what is lost when 1 - d is taken is within the rounding of the arrays' dtype.

Reference for the kernel's form: I. Sutskever, J. Martens, G. Dahl, G. Hinton. On the importance of initialization and
momentum in deep learning. ICML 2013. The identity is elementary algebra on the recurrence in `inna_core.inna`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch

from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import TORCH, Tensor, Tensors, local_shard

MAX_AMPLIFICATION = 2.0
DEVICES = ("cpu", "cuda", "mps") if hasattr(torch, "_fused_sgd_") else ()
"""Device types for which torch has the kernel."""

SCALE = attrgetter("scale")


@dataclass(frozen=True)
class KernelStep:
    """Arguments of the kernel for one step of INNA.

    Attributes:
        momentum: m.
        dampening: d.
        lr: L.
        nesterov: whether the kernel looks ahead.
        maximize: whether it negates the gradient.
        scale: s, of the velocity in the buffer before the step.
        new_scale: s', afterwards.
        gradient: what is first added to the parameter, times the gradient.
    """

    momentum: float
    dampening: float
    lr: float
    nesterov: bool = False
    maximize: bool = False
    scale: float = 1.0
    new_scale: float = 1.0
    gradient: float = 0.0


def scaled_step(
    lr: float, *, alpha: float, beta: float, eps: float, scale: float | None = None, scalar_eps: float = 2.0**-53
) -> KernelStep | None:
    """Return the kernel's arguments for one step of INNA, or None where it cannot make the step accurately.

    Args:
        lr: step size gamma, >= 0.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.
        eps: distance from 1 to the next number of the arrays' dtype.
        scale: s > 0, of the velocity in the buffer; None for the one that a constant lr keeps.
        scalar_eps: relative rounding of the kernel's scalar arguments: double precision by default.

    Returns:
        The arguments, or None.

    Example:
        >>> theta, v, g = 2.0, 1.0, 0.5
        >>> step = scaled_step(0.02, alpha=0.5, beta=0.1, eps=2**-23, scale=1.0)
        >>> h = -g if step.maximize else g
        >>> b = step.momentum * v + (1 - step.dampening) * h
        >>> round(theta - step.lr * (h + step.momentum * b), 12)  # theta + lr (v - beta g)
        2.019
        >>> round(b / step.new_scale, 12)  # (1 - alpha lr) v - lr (1 - alpha beta) g
        0.9805
    """
    gamma = lr
    r, c, gap = 1 - alpha * gamma, gamma * (1 - alpha * beta), beta - gamma
    if r == 0.0 or max(abs(c), abs(gap)) > MAX_AMPLIFICATION * beta * abs(r):
        return None
    size = abs(r * gap)
    if gap == 0.0:
        s = 1 / (abs(c) or 1.0) if scale is None else scale  # with this scale 1 - d is exact
        e, s_next, lr_kernel = 1.0, s, -gamma / (r * s)
    else:
        s = 1 / size if scale is None else scale
        e, s_next, lr_kernel = -math.copysign(1.0, r * gap), math.sqrt(s / size), -gamma * abs(gap / r)
    if c != 0.0 and abs(c) * s_next * eps < scalar_eps:
        return None
    return KernelStep(
        momentum=r * s_next / s,
        dampening=1 + e * c * s_next,
        lr=lr_kernel,
        nesterov=gap != 0.0,
        maximize=e < 0,
        scale=s,
        new_scale=s_next,
    )


def unscaled_step(
    lr: float, *, alpha: float, beta: float, eps: float, scalar_eps: float = 2.0**-53
) -> KernelStep | None:
    """Return the arguments for one step of INNA on a buffer that holds the velocity itself, or None as above.

    Example:
        >>> theta, v, g = 2.0, 1.0, 0.5
        >>> step = unscaled_step(0.02, alpha=0.5, beta=0.1, eps=2**-23)
        >>> b = step.momentum * v + (1 - step.dampening) * g
        >>> round(theta + step.gradient * g - step.lr * b, 12)  # theta + lr (v - beta g)
        2.019
        >>> round(b, 12)  # (1 - alpha lr) v - lr (1 - alpha beta) g
        0.9805
    """
    gamma = lr
    r, c, gap = 1 - alpha * gamma, gamma * (1 - alpha * beta), beta - gamma
    if r == 0.0 or max(abs(c), abs(gap)) > MAX_AMPLIFICATION * beta * abs(r) or abs(c) * eps < scalar_eps:
        return None
    return KernelStep(momentum=r, dampening=1 + c, lr=-gamma / r, gradient=-gamma * gap / r)


@functools.lru_cache(maxsize=256)
def kernel_step(
    lr: float, alpha: float, beta: float, dtype: torch.dtype, device: str, scale: float | None, scaled: bool = True
) -> KernelStep | None:
    """Return the kernel's arguments on a device, or None where it cannot make the step accurately."""
    limits = {
        "eps": torch.finfo(dtype).eps,
        "scalar_eps": 2.0**-24 if dtype == torch.float32 and device != "cpu" else 2.0**-53,
    }
    if scaled:
        step = scaled_step(lr, alpha=alpha, beta=beta, scale=scale, **limits)
    else:
        step = unscaled_step(lr, alpha=alpha, beta=beta, **limits)
    # on accelerators the kernel demands a positive momentum, so no alpha * lr of 1 or more
    return step if step is not None and (device == "cpu" or step.momentum > 0) else None


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path would be inaccurate or does not apply."""
    device = batch.device.type
    if not (batch.suits_kernels and hyper.on_host and device in DEVICES):
        return None
    arguments = hyper.lr, hyper.algorithm.alpha, hyper.algorithm.beta, batch.dtype, device
    if batch.scaled:
        step = kernel_step(*arguments, batch.states[0].scale) or kernel_step(*arguments, None)
    else:
        step = kernel_step(*arguments, None, scaled=False)
    if step is None:
        return None

    def run() -> None:
        params, grads = batch.params, batch.grads
        buffers = scaled_velocities(batch, step.scale) if batch.scaled else batch.slots["velocity"]
        if hyper.weight_decay:
            decay = hyper.lr * hyper.weight_decay
            if hyper.published_decay:
                push = decay * (1 / hyper.algorithm.beta - hyper.algorithm.alpha)
                TORCH._foreach_add_(buffers, params, alpha=-push * step.scale)
            TORCH._foreach_mul_(params, 1 - decay)
        if step.gradient:
            TORCH._foreach_add_(params, grads, alpha=-step.gradient if hyper.maximize else step.gradient)
        kernel(
            *([params, grads, buffers] if device == "cpu" else equal_strides([params, grads, buffers])),
            momentum=step.momentum,
            lr=step.lr,
            dampening=step.dampening,
            nesterov=step.nesterov,
            maximize=step.maximize != hyper.maximize,
        )
        if step.new_scale != step.scale:
            for state in batch.states:
                state.scale = step.new_scale

    return run


def scaled_velocities(batch: Batch, scale: float) -> Tensors:
    """Return the velocities times a scale, which their states then hold."""
    if set(map(SCALE, batch.states)) == {scale}:
        return batch.slots["velocity"]
    buffers = []
    for state, velocity in zip(batch.states, batch.slots["velocity"], strict=True):
        if state.scale is None:  # others may hold it
            with torch.inference_mode(False):
                state.entries["velocity"] = state.entries["velocity"] * scale
            velocity = local_shard(state.entries["velocity"])
        elif state.scale != scale:
            velocity.mul_(scale / state.scale)
        state.scale = scale
        buffers.append(torch.view_as_real(velocity) if velocity.is_complex() else velocity)
    return buffers


def kernel(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
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


def equal_strides(columns: list[Tensors]) -> list[Tensors]:
    """Return lists of dense tensors, or of views of them, whose strides are equal at the same position.

    Strides along axes of length 0 and 1 may be anything, but CUDA's kernel compares them.
    """
    first, *others = (list(map(torch.Tensor.stride, column)) for column in columns)
    if all(strides == first for strides in others):
        return columns
    return [[x.view(-1) if x.is_contiguous() else x for x in column] for column in columns]
