"""INNA as the Nesterov-momentum step that frameworks ship as one fused kernel.

Such a kernel keeps a buffer b and, for a gradient h, does in one pass over memory

    b'     = m b + (1 - d) h
    theta' = theta - L (h + m b')           with Nesterov's look-ahead; without it  theta' = theta - L b'

Give it h = e g with a sign e = +-1, and let b = s v hold INNA's velocity in units that may change from s to s' > 0
with each step. With r = 1 - alpha gamma and c = gamma (1 - alpha beta), so that v' = r v - c g, comparing the
coefficients of v and g with INNA's gives

    e = -sign(r (beta - gamma))             s'^2 = s / |r (beta - gamma)|
    m = r s' / s                            1 - d = -e c s'               L = -gamma |beta - gamma| / |r|

so one kernel call is one step of INNA, for any schedule of gamma. With constant gamma the units s = 1 / |r (beta -
gamma)| stay what they are. At gamma = beta the step needs no look-ahead, theta' = theta + (gamma / r) v', and any
units do:

    e = 1       s' = s       m = r       1 - d = -c s       L = -gamma / (r s)

At r = 0 the velocity forgets v, from which theta' cannot then be made.

Where others read the buffer, and it must hold v itself, the kernel makes a step of INNA from

    theta - (gamma (beta - gamma) / r) g

without look-ahead, in the units s = s' = 1 of gamma = beta.

| symbol | meaning                                          | name in code    |
|--------|--------------------------------------------------|-----------------|
| m      | the kernel's momentum                            | ``momentum``    |
| d      | its dampening                                    | ``dampening``   |
| L      | its learning rate; negative here                 | ``lr``          |
| e      | -1: the kernel is told to maximize               | ``maximize``    |
| s, s'  | units of its buffer before and after the step    | ``start, unit`` |

Two things limit the accuracy, and `nesterov_step` returns None beyond them. The kernel makes theta' from v', so the
rounding of c g reaches theta multiplied by gamma / |r|: that, and L, may be at most `WORST` times gamma beta, which the
gradient is multiplied with anyway. And it is told d, not 1 - d, in double (on CUDA, single) precision: c s' must be so
large that what is lost when 1 - d is taken is within the rounding of the arrays' dtype.

Reference for the kernel's form: I. Sutskever, J. Martens, G. Dahl, G. Hinton. On the importance of initialization and
momentum in deep learning. ICML 2013. The identity is elementary algebra on the recurrence in `inna_core.inna`.
"""

import math
from dataclasses import dataclass

WORST = 2.0


@dataclass(frozen=True)
class NesterovStep:
    """Arguments of the kernel for one step of INNA.

    Attributes:
        momentum: m.
        dampening: d.
        lr: L.
        nesterov: whether the kernel looks ahead.
        maximize: whether it negates the gradient.
        start: s, in which the buffer must hold the velocity before.
        unit: s', in which the buffer holds the velocity afterwards.
    """

    momentum: float
    dampening: float
    lr: float
    nesterov: bool
    maximize: bool
    start: float
    unit: float


def nesterov_step(
    lr: float, *, alpha: float, beta: float, eps: float, unit: float | None = None, told: float = 2.0**-53
) -> NesterovStep | None:
    """Return the kernel's arguments for one step of INNA, or None where it cannot make the step accurately.

    Args:
        lr: step size gamma, >= 0.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.
        eps: distance from 1 to the next number of the arrays' dtype.
        unit: s > 0, in which the buffer holds the velocity now; None for units that a constant lr keeps, ``start``.
        told: relative rounding of the numbers that the kernel is given: double precision by default.

    Returns:
        The arguments, or None.

    Example:
        >>> theta, v, g = 2.0, 1.0, 0.5
        >>> step = nesterov_step(0.02, alpha=0.5, beta=0.1, eps=2**-23, unit=1.0)
        >>> h = -g if step.maximize else g
        >>> b = step.momentum * v + (1 - step.dampening) * h
        >>> round(theta - step.lr * (h + step.momentum * b), 12)  # theta + lr (v - beta g)
        2.019
        >>> round(b / step.unit, 12)  # (1 - alpha lr) v - lr (1 - alpha beta) g
        0.9805
    """
    gamma = lr
    r, c, gap = 1 - alpha * gamma, gamma * (1 - alpha * beta), beta - gamma
    if r == 0.0 or max(abs(c), abs(gap)) > WORST * beta * abs(r):
        return None
    size = abs(r * gap)
    if gap == 0.0:
        s = 1 / (abs(c) or 1.0) if unit is None else unit  # in these units 1 - d is exact
        e, s_next, lr_kernel = 1.0, s, -gamma / (r * s)
    else:
        s = 1 / size if unit is None else unit
        e, s_next, lr_kernel = -math.copysign(1.0, r * gap), math.sqrt(s / size), -gamma * abs(gap / r)
    if c != 0.0 and abs(c) * s_next * eps < told:
        return None
    return NesterovStep(
        momentum=r * s_next / s,
        dampening=1 + e * c * s_next,
        lr=lr_kernel,
        nesterov=gap != 0.0,
        maximize=e < 0,
        start=s,
        unit=s_next,
    )


@dataclass(frozen=True)
class MomentumStep:
    """Arguments for one step of INNA on a buffer that holds the velocity itself.

    Attributes:
        gradient: what is first added to the parameter, times the gradient.
        momentum: m.
        dampening: d.
        lr: L.
    """

    gradient: float
    momentum: float
    dampening: float
    lr: float


def momentum_step(lr: float, *, alpha: float, beta: float, eps: float, told: float = 2.0**-53) -> MomentumStep | None:
    """Return the arguments for one step of INNA in true units, or None where they cannot make it accurately.

    Args:
        lr: step size gamma, >= 0.
        alpha: viscous damping, >= 0.
        beta: Newtonian damping, > 0.
        eps: distance from 1 to the next number of the arrays' dtype.
        told: relative rounding of the numbers that the kernel is given: double precision by default.

    Returns:
        The arguments, or None.

    Example:
        >>> theta, v, g = 2.0, 1.0, 0.5
        >>> step = momentum_step(0.02, alpha=0.5, beta=0.1, eps=2**-23)
        >>> b = step.momentum * v + (1 - step.dampening) * g
        >>> round(theta + step.gradient * g - step.lr * b, 12)  # theta + lr (v - beta g)
        2.019
        >>> round(b, 12)  # (1 - alpha lr) v - lr (1 - alpha beta) g
        0.9805
    """
    gamma = lr
    r, c, gap = 1 - alpha * gamma, gamma * (1 - alpha * beta), beta - gamma
    if r == 0.0 or max(abs(c), abs(gap)) > WORST * beta * abs(r) or abs(c) * eps < told:
        return None
    return MomentumStep(gradient=-gamma * gap / r, momentum=r, dampening=1 + c, lr=-gamma / r)
