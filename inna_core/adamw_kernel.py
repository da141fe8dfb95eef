"""INNAprop as two AdamW steps, which frameworks ship as one fused kernel, and one addition.

With its first decay rate 0, AdamW applied to an array x with gradient g is

    s' = sigma s + (1 - sigma) g^2            x' = (1 - L W) x - L g / (sqrt(s' / (1 - sigma^t)) + eps)

whose quotient is INNAprop's q at t = k + 1. So these three passes are a step of INNAprop (`inna_core.innaprop`) with
decoupled weight decay, where c = gamma (1 - alpha beta):

    AdamW on theta    with L = gamma beta, W = lambda / beta         theta <- (1 - gamma lambda) theta - gamma beta q
    theta <- theta + gamma v
    AdamW on v        with L = c, W = alpha gamma / c                v <- (1 - alpha gamma) v - c q

The second kernel call must find s' and leave it alone. Told that sigma is `KEEP`, the number just below 1, it changes
s' by 2^-53 g^2, which is nothing next to (1 - sigma) g^2; told the step count t' with KEEP^t' = sigma^t, it corrects
the bias as the first did. It takes t' in float32, which is accurate enough for float32 arrays only. At c = 0 it is a
multiplication.

The kernel also writes g + 0 (m - g) to its first moment m; passed g itself for m, it leaves g as it is.

Reference for the kernel's form: I. Loshchilov, F. Hutter. Decoupled weight decay regularization. ICLR 2019.
"""

import math
from dataclasses import dataclass

KEEP = 1 - 2.0**-53


@dataclass(frozen=True)
class AdamWStep:
    """Arguments of the kernel for one array.

    Attributes:
        lr: L.
        beta2: sigma, or `KEEP`.
        weight_decay: W.
        step: t, or t'.
    """

    lr: float
    beta2: float
    weight_decay: float
    step: float


def adamw_steps(
    lr: float, step: int, *, alpha: float, beta: float, sigma: float, weight_decay: float, maximize: bool = False
) -> tuple[AdamWStep, AdamWStep | None]:
    """Return the kernel's arguments for the parameter, and for the velocity.

    Args:
        lr: step size gamma, >= 0.
        step: k, the number of steps made before.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.
        sigma: decay of the second moment, in [0, 1).
        weight_decay: rate lambda, >= 0.
        maximize: whether to ascend; L and W change sign, since the kernel would change the gradient.

    Returns:
        The two calls; None for the second where the velocity does not see the gradient.

    Example:
        >>> first, second = adamw_steps(0.01, 0, alpha=0.5, beta=0.1, sigma=0.9, weight_decay=0.2)
        >>> round(first.lr, 12), round(first.weight_decay, 12), first.step
        (0.001, 2.0, 1)
        >>> round(second.lr, 12), round(second.lr * second.weight_decay, 12), round(second.beta2**second.step, 12)
        (0.0095, 0.005, 0.9)
    """
    sign, t, c = -1.0 if maximize else 1.0, step + 1, lr * (1 - alpha * beta)
    first = AdamWStep(sign * lr * beta, sigma, sign * weight_decay / beta, t)
    if c == 0.0:
        return first, None
    log_sigma = math.log(sigma) if sigma > 0.0 else -math.inf
    return first, AdamWStep(sign * c, KEEP, sign * alpha * lr / c, t * log_sigma / math.log(KEEP))
