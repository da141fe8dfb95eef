"""INNAprop on torch's fused kernels, as one AdamW step and two plain SGD steps.

With its first decay rate 0, without weight decay and at step t, AdamW applied to an array x with gradient g is

    s' = sigma s + (1 - sigma) g^2            x' = x - L g / (sqrt(s' / (1 - sigma^t)) + E)

At t = infinity it corrects no bias: the kernel would compute b = 1 - sigma^(k+1) by that subtraction, with few digits.
Instead L = beta sqrt(b) and E = eps sqrt(b) make the last term beta q, with the q of INNAprop. Started at x = v it
returns x = v - beta q, the direction of theta, from which q = (v - x) / beta. So two gradient steps
y' = y - L (x + W y) complete a step of INNAprop (`inna_core.innaprop`) with decoupled weight decay (published decay
changes v before that):

    theta' = theta + gamma (x - (d / gamma) theta)        L = -gamma                     W = -d / gamma
    v'     = v + gamma ((1/beta - alpha) x - v / beta)    L = -gamma (1/beta - alpha)    W = -1 / (1 - alpha beta)

where d = gamma lambda, or eta lambda with momentum. At alpha beta = 1, and at gamma = 0, where beta may be 0 too, the
last one is v' = (1 - alpha gamma) v, without the gradient.

The rounding error of x enters v' times gamma |1/beta - alpha|, and v itself enters in two parts, (1 - gamma / beta) v
and gamma v / beta. The path is taken if both factors, gamma |1/beta - alpha| and gamma / beta, are at most
`MAX_AMPLIFICATION` times |1 - alpha gamma|, by which v is multiplied anyway.

Reference for the kernel's form: I. Loshchilov, F. Hutter. Decoupled weight decay regularization. ICLR 2019.
"""

import functools
import math
from collections.abc import Callable

import torch

from inna_core.coefficients import Coefficients
from inna_core.innaprop import bias_correction
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import CACHE_BLOCK_NUMEL, TORCH, blocks
from inna_torch.paths.fused_sgd import arguments

MAX_AMPLIFICATION = 1.25
BLOCKS = 42
"""Number of blocks of large parameters, such that two temporaries take 1/21 of their memory."""

INF_STEP = torch.tensor(math.inf, dtype=torch.float32, device="cpu")


def is_accurate(by: Coefficients) -> bool:
    """Return whether the kernels make steps of INNAprop accurately.

    Example:
        >>> from inna_core import INNAprop
        >>> [is_accurate(INNAprop().coefficients(lr)) for lr in (1e-3, 1.2)]
        [True, False]
    """
    gamma, beta, alpha_gamma, alpha_beta = by
    return gamma * max(1.0, abs(1 - alpha_beta)) <= MAX_AMPLIFICATION * beta * abs(1 - alpha_gamma)


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path would be inaccurate or does not apply."""
    # on CUDA the kernel takes 1 - sigma in single precision, which is wrong by 1e-5 of it for sigma = 0.999
    if not (batch.suits_kernels and hyper.on_host and batch.device.type == "cpu") or batch.step is None:
        return None
    return functools.partial(run, batch, hyper, batch.step) if is_accurate(hyper.coefficients) else None


def run(batch: Batch, hyper: Hyperparameters, steps: float) -> None:
    """Make the step, in blocks that stay in the cache from kernel to kernel."""
    gamma, beta, alpha_gamma, alpha_beta = hyper.coefficients
    sigma, eps, one_minus_alpha_beta = hyper.algorithm.sigma, hyper.algorithm.eps, 1 - alpha_beta
    d, root = hyper.lr * hyper.weight_decay, math.sqrt(bias_correction(sigma, steps + 1, math))
    parameter_step, velocity_step = arguments(-gamma, weight_decay=-d / gamma if gamma else 0.0), None
    if gamma and one_minus_alpha_beta:
        velocity_step = arguments(-gamma * one_minus_alpha_beta / beta, weight_decay=-1 / one_minus_alpha_beta)
    total = sum(map(torch.Tensor.numel, batch.params))
    size = min(max(total // BLOCKS, 2 * CACHE_BLOCK_NUMEL), 4 * CACHE_BLOCK_NUMEL, total)
    for theta, grads, v, s in blocks(batch.columns, size, shared=size):
        if d and hyper.published_decay:
            TORCH._foreach_add_(v, theta, alpha=-d * one_minus_alpha_beta / beta)
        # Cloned one by one: for a small network another kind of multi-tensor call costs more than repeated clones. The
        # kernel adds 0 times the old first moment, so it must be finite where v is, and stores the gradient in it.
        x, moments = list(map(torch.Tensor.clone, v)), list(map(torch.Tensor.clone, v))
        TORCH._fused_adamw_(
            x,
            grads,
            moments,
            s,
            [],
            [INF_STEP] * len(v),
            lr=beta * root,
            beta1=0.0,
            beta2=sigma,
            weight_decay=0.0,
            eps=eps * root,
            amsgrad=False,
            maximize=hyper.maximize,
        )
        TORCH._fused_sgd_(theta, x, [], **parameter_step)
        if velocity_step:
            TORCH._fused_sgd_(v, x, [], **velocity_step)
        else:
            TORCH._foreach_mul_(v, 1 - alpha_gamma)
        del x, moments  # before the next block's are made
