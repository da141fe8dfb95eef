"""The algorithms as in-place multi-tensor functions. An algorithm without one takes the single path.

The equations are those of `inna_core`, written for lists of tensors; the conformance suite compares the two.
"""

import math
from collections.abc import Callable
from typing import Any

import inna_core
from inna_core.innaprop import bias_correction
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import ACCELERATOR_BLOCK_NUMEL, CACHE_BLOCK_NUMEL, TORCH, WIDER, Tensors, blocks


def inna(hyper: Hyperparameters, step: float, theta: Tensors, g: Tensors, v: Tensors) -> None:
    """Make a step of `inna_core.INNA`."""
    gamma, beta, alpha_gamma, alpha_beta = hyper.coefficients
    sign = -1.0 if hyper.maximize else 1.0
    decay(hyper, theta, v)
    TORCH._foreach_add_(theta, v, alpha=gamma)
    TORCH._foreach_add_(theta, g, alpha=-gamma * beta * sign)
    TORCH._foreach_mul_(v, 1 - alpha_gamma)
    TORCH._foreach_add_(v, g, alpha=-gamma * (1 - alpha_beta) * sign)


def innaprop(hyper: Hyperparameters, step: float, theta: Tensors, g: Tensors, v: Tensors, s: Tensors) -> None:
    """Make a step of `inna_core.INNAprop`."""
    gamma, beta, alpha_gamma, alpha_beta = hyper.coefficients
    sigma, eps = hyper.algorithm.sigma, hyper.algorithm.eps
    sign = -1.0 if hyper.maximize else 1.0
    decay(hyper, theta, v)
    TORCH._foreach_mul_(s, sigma)
    TORCH._foreach_addcmul_(s, g, g, value=1 - sigma)
    # q = g / (sqrt(s / b) + eps) = root g / (sqrt(s) + eps root), with b = 1 - sigma^(k+1) and root = sqrt(b)
    root = math.sqrt(bias_correction(sigma, step + 1, math))
    denominators = TORCH._foreach_sqrt(s)
    TORCH._foreach_add_(denominators, eps * root)
    TORCH._foreach_add_(theta, v, alpha=gamma)
    TORCH._foreach_addcdiv_(theta, g, denominators, value=-gamma * beta * root * sign)
    TORCH._foreach_mul_(v, 1 - alpha_gamma)
    TORCH._foreach_addcdiv_(v, g, denominators, value=-gamma * (1 - alpha_beta) * root * sign)


def decay(hyper: Hyperparameters, theta: Tensors, v: Tensors) -> None:
    """Apply decoupled weight decay (`inna_core.weight_decay`)."""
    if hyper.weight_decay:
        shrink = hyper.lr * hyper.weight_decay
        if hyper.published_decay:
            _, beta, _, alpha_beta = hyper.coefficients
            TORCH._foreach_add_(v, theta, alpha=-shrink * (1 - alpha_beta) / beta)
        TORCH._foreach_mul_(theta, 1 - shrink)


FUNCTIONS: dict[type, Callable[..., None]] = {inna_core.INNA: inna, inna_core.INNAprop: innaprop}
"""By algorithm; each takes the hyperparameters, the number of steps made before, and the batch's columns."""


def plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None:
    """Return the batch's in-place step, or None where this path would be inaccurate or does not apply."""
    function: Any = FUNCTIONS.get(type(hyper.algorithm))
    if function is None or not hyper.on_host or "compensation" in batch.slots or batch.step is None:
        return None
    if not batch.native or batch.dtype in WIDER or batch.dtype != batch.grads[0].dtype:
        return None
    step, columns = batch.step, batch.columns
    if len(batch.slots) == 1:  # no temporaries
        return lambda: function(hyper, step, *columns)

    # Blocks stay in a CPU's cache. Small tensors are not copied together: that takes as long as it saves.
    cached = batch.device.type == "cpu" and batch.dense
    size, largest = (2 * CACHE_BLOCK_NUMEL, None) if cached else (ACCELERATOR_BLOCK_NUMEL, 2**62)

    def run() -> None:
        for block in blocks(columns, size, shared=size, largest=largest):
            function(hyper, step, *block)

    return run
