"""INNAprop as one AdamW step and two plain gradient steps, which frameworks ship as fused kernels.

With its first decay rate 0, without weight decay and at step t, AdamW applied to an array x with gradient g is

    s' = sigma s + (1 - sigma) g^2            x' = x - L g / (sqrt(s' / (1 - sigma^t)) + E)

At t = infinity it corrects no bias. With b = 1 - sigma^(k+1), which it would compute as that difference and so with few
digits, L = beta sqrt(b) and E = eps sqrt(b) make the last term beta q, with the q of INNAprop. Started at x = v it
leaves x = v - beta q, the direction of theta, from which q = (v - x) / beta. So two gradient steps y' = y - L (x + W y)
complete a step of INNAprop (`inna_core.innaprop`) with decoupled weight decay:

    theta' = theta + gamma (x - lambda theta)             L = -gamma                     W = -lambda
    v'     = v + gamma ((1/beta - alpha) x - v / beta)    L = -gamma (1/beta - alpha)    W = -1 / (1 - alpha beta)

At alpha beta = 1 the last one is v' = (1 - gamma / beta) v and sees no gradient.

The rounding of x reaches v multiplied by gamma |1/beta - alpha|, and v itself is taken apart into (1 - gamma / beta) v
and gamma v / beta: both factors may be at most `WORST` times |1 - alpha gamma|, which v is multiplied with anyway.

Reference for the kernel's form: I. Loshchilov, F. Hutter. Decoupled weight decay regularization. ICLR 2019.
"""

import math
from dataclasses import dataclass

WORST = 1.0


@dataclass(frozen=True)
class GradientStep:
    """Arguments of a step y' = y - L (x + W y).

    Attributes:
        lr: L.
        weight_decay: W.
    """

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class AdamWStep:
    """Arguments of the kernels for one step of INNAprop.

    Attributes:
        lr: L of the AdamW step that starts at the velocity.
        eps: E.
        parameter: the step of the parameter.
        velocity: the step of the velocity; None where it does not see the gradient.
        shrink: what the velocity is multiplied with then.
    """

    lr: float
    eps: float
    parameter: GradientStep
    velocity: GradientStep | None
    shrink: float


def adamw_step(
    lr: float,
    step: float,
    *,
    alpha: float,
    beta: float,
    sigma: float,
    eps: float,
    weight_decay: float,
    maximize: bool = False,
) -> AdamWStep | None:
    """Return the kernels' arguments for one step of INNAprop, or None where they cannot make it accurately.

    Args:
        lr: step size gamma, >= 0.
        step: k, the number of steps made before.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.
        sigma: decay of the second moment, in [0, 1).
        eps: keeps the quotient finite, > 0.
        weight_decay: rate lambda, >= 0.
        maximize: whether to ascend.

    Returns:
        The arguments, or None.

    Example:
        >>> theta, v, g = 2.0, 1.0, 3.0
        >>> step = adamw_step(0.02, 0, alpha=0.5, beta=0.1, sigma=0.9, eps=3.0, weight_decay=0.2)
        >>> x = v - step.lr * g / ((0.1 * g**2) ** 0.5 + step.eps)  # q = g / (sqrt(0.1 g^2 / 0.1) + eps) = 0.5
        >>> round(theta - step.parameter.lr * (x + step.parameter.weight_decay * theta), 12)
        2.011
        >>> round(v - step.velocity.lr * (x + step.velocity.weight_decay * v), 12)
        0.9805
    """
    gamma, seen = lr, 1 - alpha * beta
    if gamma * max(1.0, abs(seen)) > WORST * beta * abs(1 - alpha * gamma):
        return None
    root = math.sqrt(-math.expm1((step + 1) * math.log(sigma))) if sigma else 1.0
    return AdamWStep(
        lr=-beta * root if maximize else beta * root,
        eps=eps * root,
        parameter=GradientStep(-gamma, -weight_decay),
        velocity=GradientStep(-gamma * seen / beta, -1 / seen) if seen else None,
        shrink=1 - gamma / beta,
    )
