# pyright: reportPrivateImportUsage=false
"""The updates of `inna_core` in multi-tensor calls, in place, for Keras on torch.

One call works on the variables of a whole model, as in the classes that Keras' torch backend puts in the place of its
own optimizers. To rounding, it is what `inna_core.inna`, `inna_core.innaprop` and `inna_core.decay` compute.
"""

import math
from typing import Any

import torch

import inna_core

Tensors = list[torch.Tensor]


def apply(
    algorithm: Any,
    thetas: Tensors,
    grads: Tensors,
    slots: dict[str, Tensors],
    steps: int,
    lr: float,
    decayed: list[int],
    weight_decay: float,
    published: bool,
) -> None:
    """Update parameters and state in place.

    Args:
        algorithm: `inna_core.INNA` or `inna_core.INNAprop`.
        thetas: parameters, of one dtype and device, float32 or float64.
        grads: gradients, like the parameters; left alone.
        slots: state by field name, like the parameters.
        steps: number of steps made before.
        lr: step size.
        decayed: indices of the parameters that decay.
        weight_decay: rate of the decay.
        published: whether the decay acts on the velocity too.
    """
    alpha, beta, velocities = algorithm.alpha, algorithm.beta, slots["velocity"]
    if decayed and weight_decay:
        shrinking, rate = [thetas[i] for i in decayed], lr * weight_decay
        if published:
            torch._foreach_add_([velocities[i] for i in decayed], shrinking, alpha=-(1 / beta - alpha) * rate)
        torch._foreach_mul_(shrinking, 1 - rate)

    keep, push = 1 - alpha * lr, lr * (1 - alpha * beta)
    if isinstance(algorithm, inna_core.INNAprop):
        moments = slots["second_moment"]
        torch._foreach_mul_(moments, algorithm.sigma)
        torch._foreach_addcmul_(moments, grads, grads, value=1 - algorithm.sigma)
        scales = torch._foreach_sqrt(moments)
        # 1 - sigma^(k+1); sigma = 0 has no logarithm
        corrected = -math.expm1((steps + 1) * math.log(algorithm.sigma)) if algorithm.sigma else 1.0
        torch._foreach_mul_(scales, 1 / math.sqrt(corrected))
        torch._foreach_add_(scales, algorithm.eps)
        torch._foreach_add_(thetas, velocities, alpha=lr)
        torch._foreach_addcdiv_(thetas, grads, scales, value=-lr * beta)
        torch._foreach_mul_(velocities, keep)
        torch._foreach_addcdiv_(velocities, grads, scales, value=-push)
    elif keep >= 0.5 and fits_fused_kernel(thetas, grads, velocities, lr):
        # the kernel of SGD with momentum moves the velocity and then adds it: theta is written in terms of the next
        # velocity, theta + (lr / keep) (v' - (beta - lr) g), which v' = keep v - push g makes the same
        torch._foreach_add_(thetas, grads, alpha=-lr * (beta - lr) / keep)
        torch._fused_sgd_(
            thetas,
            grads,
            velocities,
            weight_decay=0.0,
            momentum=keep,
            lr=-lr / keep,
            dampening=1 + push,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
    else:
        torch._foreach_add_(thetas, velocities, alpha=lr)
        torch._foreach_add_(thetas, grads, alpha=-lr * beta)
        torch._foreach_mul_(velocities, keep)
        torch._foreach_add_(velocities, grads, alpha=-push)


def fits_fused_kernel(thetas: Tensors, grads: Tensors, velocities: Tensors, lr: float) -> bool:
    # The kernel walks the memory of all three in step. It takes 1 + push and gives back push to 1e-16: too little for
    # float64, and for steps that are smaller than any of use.
    return (
        thetas[0].dtype == torch.float32
        and thetas[0].device.type in ("cpu", "cuda")
        and lr >= 1e-6
        and all(
            # CUDA's kernel compares strides, even along axes of length 0 and 1
            p.is_contiguous() and p.stride() == g.stride() == v.stride()
            for p, g, v in zip(thetas, grads, velocities, strict=True)
        )
    )


def is_plain(theta: Any, grad: Any, slots: list[Any]) -> bool:
    """Return whether multi-tensor calls may mix these tensors: one wide dtype, one device, no tensor subclass."""
    return theta.dtype in (torch.float32, torch.float64) and all(
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.dtype == theta.dtype
        and x.device == theta.device
        and x.layout == torch.strided
        for x in (theta, grad, *slots)
    )


def is_compiling() -> bool:
    return torch.compiler.is_compiling()
