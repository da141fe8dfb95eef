"""The step of a whole model at once, in place, for Keras on torch, as in the classes that Keras' torch backend puts in
the place of its own optimizers: by `inna_torch`'s multi-tensor calls and fused kernels."""

from itertools import chain
from typing import Any

import torch

import inna_core
from inna_core.adamw_kernel import adamw_step
from inna_core.sgd_kernel import momentum_step
from inna_torch._lists import TORCH, Tensors, flattens
from inna_torch._steps import adamw_devices, adamw_kernel_step, alike, foreach_step, sgd_devices, sgd_kernel


def apply(
    algorithm: Any, columns: list[Tensors], steps: int, lr: float, weight_decay: float, *, published: bool
) -> None:
    """Update parameters and state in place.

    Args:
        algorithm: of `inna_core`.
        columns: parameters, gradients, and the fields of the state other than the step; tensors of one dtype and
            device, float32 or float64.
        steps: number of steps made before.
        lr: step size.
        weight_decay: rate of the decay.
        published: whether the decay acts on the velocity too.
    """
    theta, grads, *_ = columns
    first, device = theta[0], theta[0].device.type
    # the kernels walk through memory and never look at strides
    dense = not published and (
        all(map(torch.Tensor.is_contiguous, chain(*columns)))  # of all at once: most are, and there may be many
        or all(flattens(x, p) for p, *row in zip(*columns, strict=True) for x in (p, *row))
    )
    if dense and isinstance(algorithm, inna_core.INNAprop) and device in adamw_devices():
        call = adamw_step(
            lr,
            steps,
            alpha=algorithm.alpha,
            beta=algorithm.beta,
            sigma=algorithm.sigma,
            eps=algorithm.eps,
            weight_decay=weight_decay,
        )
        if call is not None:
            adamw_kernel_step(call, algorithm.sigma, columns)
            return
    if dense and isinstance(algorithm, inna_core.INNA) and device in sgd_devices():
        eps = torch.finfo(first.dtype).eps
        # on accelerators the kernel is told its numbers in single precision, and demands a positive momentum
        told = 2.0**-24 if not first.is_cpu and first.dtype == torch.float32 else 2.0**-53
        momentum = momentum_step(lr, alpha=algorithm.alpha, beta=algorithm.beta, eps=eps, told=told)
        if momentum is not None and (first.is_cpu or momentum.momentum > 0):
            if weight_decay:
                TORCH._foreach_mul_(theta, 1 - lr * weight_decay)
            TORCH._foreach_add_(theta, grads, alpha=momentum.gradient)
            sgd_kernel(
                *(columns if first.is_cpu else alike(columns)),
                lr=momentum.lr,
                momentum=momentum.momentum,
                dampening=momentum.dampening,
            )
            return
    foreach_step(algorithm, columns, steps, lr, weight_decay, published=published)


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
