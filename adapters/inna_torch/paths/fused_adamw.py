"""INNAprop on torch's fused kernels, as one AdamW step and two plain SGD steps.

With its first decay rate 0, without weight decay and at step t, AdamW applied to an array x with gradient g is

    s' = sigma s + (1 - sigma) g^2            x' = x - L g / (sqrt(s' / (1 - sigma^t)) + E)

At t = infinity it corrects no bias. With b = 1 - sigma^(k+1), which it would compute as that difference and so with few
digits, L = beta sqrt(b) and E = eps sqrt(b) make the last term beta q, with the q of INNAprop. Started at x = v it
leaves x = v - beta q, the direction of theta, from which q = (v - x) / beta. So two gradient steps y' = y - L (x + W y)
complete a step of INNAprop (`inna_core.innaprop`) with decoupled weight decay (as published, v is pushed before):

    theta' = theta + gamma (x - (d / gamma) theta)        L = -gamma                     W = -d / gamma
    v'     = v + gamma ((1/beta - alpha) x - v / beta)    L = -gamma (1/beta - alpha)    W = -1 / (1 - alpha beta)

where d = gamma lambda, or eta lambda with momentum. At alpha beta = 1, and at gamma = 0, where beta may be 0 too, the
last one is v' = (1 - alpha gamma) v and sees no gradient.

The rounding of x reaches v multiplied by gamma |1/beta - alpha|, and v itself is taken apart into (1 - gamma / beta) v
and gamma v / beta: both factors may be at most `MAX_AMPLIFICATION` times |1 - alpha gamma|, which v is multiplied by
anyway.

Reference for the kernel's form: I. Loshchilov, F. Hutter. Decoupled weight decay regularization. ICLR 2019.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from inna_core.coefficients import Coefficients
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import CACHE_BLOCK_NUMEL, TORCH, blocks
from inna_torch.paths import fused_sgd

MAX_AMPLIFICATION = 1.25
DEVICES = ("cpu",) if hasattr(torch, "_fused_adamw_") and fused_sgd.DEVICES else ()
"""Device types on which torch's AdamW kernel makes the step: on CUDA it takes 1 - sigma in single precision, which is
wrong by 1e-5 of it for sigma = 0.999."""

BLOCKS = 42
"""Into how many blocks to cut parameters at least, so that two temporaries are at most 1/21 of them."""

INF_STEP = torch.tensor(math.inf, dtype=torch.float32, device="cpu")


class GradientStep(NamedTuple):
    """Arguments L and W of a step y' = y - L (x + W y)."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class AdamWStep:
    """Arguments of the kernels for a step of INNAprop.

    Attributes:
        lr, eps: L and E of the AdamW step that starts at the velocity, over sqrt(b).
        sigma: its second decay rate.
        parameter: the step of the parameter.
        velocity: the step of the velocity; None where it does not depend on the gradient.
        shrink: what the velocity is multiplied by then.
        push: what is added to the velocity before, times the parameter (published decay).
    """

    lr: float
    eps: float
    sigma: float
    parameter: GradientStep
    velocity: GradientStep | None
    shrink: float
    push: float


@functools.lru_cache(maxsize=256)
def adamw_step(
    by: Coefficients, sigma: float, eps: float, decay: float = 0.0, published: bool = False, maximize: bool = False
) -> AdamWStep | None:
    """Return the kernels' arguments for steps of INNAprop with decay d, or None where they cannot be accurate.

    Example:
        >>> from inna_core import INNAprop
        >>> theta, v, g = 2.0, 1.0, 3.0
        >>> step = adamw_step(INNAprop(alpha=0.5, beta=0.1).coefficients(0.02), sigma=0.9, eps=3.0, decay=0.004)
        >>> root = bias_correction(0.9, 0)
        >>> x = v - step.lr * root * g / ((0.1 * g**2) ** 0.5 + step.eps * root)  # q = g / (sqrt(g^2) + eps) = 0.5
        >>> round(theta - step.parameter.lr * (x + step.parameter.weight_decay * theta), 12)
        2.011
        >>> round(v - step.velocity.lr * (x + step.velocity.weight_decay * v), 12)
        0.9805
    """
    gamma, beta, alpha_gamma, alpha_beta = by
    one_minus_alpha_beta = 1 - alpha_beta
    if gamma * max(1.0, abs(one_minus_alpha_beta)) > MAX_AMPLIFICATION * beta * abs(1 - alpha_gamma):
        return None
    return AdamWStep(
        lr=-beta if maximize else beta,
        eps=eps,
        sigma=sigma,
        parameter=GradientStep(-gamma, -decay / gamma if gamma else 0.0),
        velocity=GradientStep(-gamma * one_minus_alpha_beta / beta, -1 / one_minus_alpha_beta)
        if gamma and one_minus_alpha_beta
        else None,
        shrink=1 - alpha_gamma,
        push=-decay * one_minus_alpha_beta / beta if published else 0.0,
    )


def bias_correction(sigma: float, steps: float) -> float:
    """Return sqrt(b) = sqrt(1 - sigma^(k+1)) after k steps."""
    return math.sqrt(-math.expm1((steps + 1) * math.log(sigma))) if sigma else 1.0


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path would be inaccurate or does not apply."""
    if not (batch.suits_kernels and hyper.on_host and batch.device.type in DEVICES) or batch.step is None:
        return None
    sigma, eps, decay = hyper.algorithm.sigma, hyper.algorithm.eps, hyper.lr * hyper.weight_decay
    step = adamw_step(hyper.coefficients, sigma, eps, decay, hyper.published_decay, hyper.maximize)
    return None if step is None else functools.partial(run, step, bias_correction(sigma, batch.step), batch)


def run(step: AdamWStep, root: float, batch: Batch) -> None:
    """Make the step, in blocks that stay in the cache from kernel to kernel."""
    total = sum(map(torch.Tensor.numel, batch.params))
    size = min(max(total // BLOCKS, 2 * CACHE_BLOCK_NUMEL), 4 * CACHE_BLOCK_NUMEL, total)
    for theta, grads, v, s in blocks(batch.columns, size, shared=size):
        if step.push:
            TORCH._foreach_add_(v, theta, alpha=step.push)
        # Each kind of torch call costs a small network more than its repetition, so copies are made one by one.
        # The kernel adds 0 times the old first moment, which must be finite where v is, and leaves the gradient there.
        x, moments = list(map(torch.Tensor.clone, v)), list(map(torch.Tensor.clone, v))
        TORCH._fused_adamw_(
            *(x, grads, moments, s, [], [INF_STEP] * len(v)),
            lr=step.lr * root,
            beta1=0.0,
            beta2=step.sigma,
            weight_decay=0.0,
            eps=step.eps * root,
            amsgrad=False,
            maximize=False,
        )
        fused_sgd.kernel(theta, x, [], lr=step.parameter.lr, weight_decay=step.parameter.weight_decay)
        if step.velocity is None:
            TORCH._foreach_mul_(v, step.shrink)
        else:
            fused_sgd.kernel(v, x, [], lr=step.velocity.lr, weight_decay=step.velocity.weight_decay)
        del x, moments  # before the next block's are made
