"""Steps of INNA: with the learning rate that the user gave, or with one that the energy controls.

The control has three rules. Each has one constant.

Start. Power iteration on differences of gradients estimates the sharpness at x0, the largest eigenvalue of the Hessian.
The first learning rate is `START` times the largest that is stable for it (`inna_core.dynamics.largest_stable_lr`).

Accept or halve. The energy E = 2 (1 + alpha beta) J(x) + |v|^2 never grows along the continuous dynamics. Where a step
raises it by more than rounding, the step is too long: it is rejected, the learning rate is multiplied by `SHRINK`, and
the velocity starts from zero again. From rest, a short enough step is one of gradient descent, which lowers the energy,
so rejections come to an end. After each accepted step the learning rate is multiplied by `GROWTH`. Where a step from
rest is too short to change x, the sharpness is estimated again; if that does not help, rounding allows no further step.

Restart. Where the accepted step ends going uphill, g_{k+1} . (x_{k+1} - x_k) > 0, the velocity starts from zero again.
So the momentum can be close to 1, and need not be tuned to the condition number.

On bounds, the iterate is projected, and the velocity is set to zero in the variables that the projection moved. The
rules stay the same: from rest, a short enough projected step lowers the energy too.

References: Castera et al., JMLR 22(134), 2021, section 3 (energy). B. O'Donoghue, E. Candès. Adaptive restart for
accelerated gradient schemes. Foundations of Computational Mathematics 15, 2015, section 3.2 (gradient restart).
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from inna_core.dynamics import energy, largest_stable_lr
from inna_core.inna import INNA, INNAState
from inna_scipy._problem import Array, Box, Objective

START, SHRINK, GROWTH = 0.5, 0.5, 1.01
POWER_ITERATIONS = 3
EPS = sys.float_info.epsilon


class Iterate(NamedTuple):
    """Where the minimization is.

    Attributes:
        x: the parameters.
        fun: the objective there; None where it has not been evaluated.
        grad: the gradient there.
        state: INNA's, before the next step.
        lr: learning rate of the next step.
    """

    x: Array
    fun: float | None
    grad: Array
    state: INNAState
    lr: float


Step = Callable[[Iterate], Iterate | None]
"""From an iterate to the next, or to None where no step changes x."""


def moved(algorithm: INNA, box: Box, now: Iterate, state: INNAState, lr: float) -> tuple[Array, INNAState]:
    """Return INNA's next x and state, projected onto the box."""
    delta, after = algorithm.update(now.grad, state, now.x, lr)
    free = now.x + delta
    if not box.is_bounded:
        return free, after
    x = box.projected(free)
    return x, INNAState(np.where(x == free, after.velocity, 0.0))


def fixed_step(algorithm: INNA, objective: Objective, box: Box, now: Iterate) -> Iterate:
    """Return the iterate after a step with the present learning rate; the objective is not evaluated."""
    x, state = moved(algorithm, box, now, now.state, now.lr)
    return Iterate(x, None, objective.gradient(x), state, now.lr)


def controlled_step(algorithm: INNA, objective: Objective, box: Box, now: Iterate) -> Iterate | None:
    """Return the iterate after a step that the energy accepts; None where rounding allows no step."""
    assert now.fun is not None
    lr, state, measured = now.lr, now.state, False
    while True:
        x, after = moved(algorithm, box, now, state, lr)
        if np.array_equal(x, now.x) and not state.velocity.any():
            if measured:
                return None
            # the step may be too short because the sharpness at x0 was much larger
            lr, measured = first_lr(algorithm, objective, box, now.x, now.grad), True
            continue
        fun = objective.value(x)
        if not energy_grows(algorithm, lr, (now.fun, state), (fun, after)):
            grad = objective.gradient(x)
            if np.isfinite(grad).all():
                break
        lr, state = SHRINK * lr, algorithm.init(now.x)
    if grad @ (x - now.x) > 0:
        after = algorithm.init(x)
    return Iterate(x, fun, grad, after, GROWTH * lr)


def energy_grows(algorithm: INNA, lr: float, before: tuple[float, INNAState], after: tuple[float, INNAState]) -> bool:
    """Return whether a step raises the energy by more than rounding errors, or makes it infinite or NaN."""
    by = algorithm.coefficients(lr)
    with np.errstate(over="ignore", invalid="ignore"):
        old, new = (
            float(energy(fun, [state.velocity], alpha=by.alpha, beta=by.beta)) for fun, state in (before, after)
        )
    rounding = 10 * EPS * max(abs(old), abs(before[0]), abs(after[0]))
    return not new <= old + rounding or not np.isfinite(new)


def first_lr(algorithm: INNA, objective: Objective, box: Box, x: Array, grad: Array) -> float:
    """Return the learning rate to start with; the gradient is evaluated `POWER_ITERATIONS` times."""
    # the cube root balances the rounding error of a difference against its truncation error
    radius = EPS ** (1 / 3) * max(1.0, float(np.linalg.norm(x)))
    direction, sharpness = -grad, 0.0
    for _ in range(POWER_ITERATIONS):
        d = box.projected(x + radius / np.linalg.norm(direction) * direction) - x
        if not d.any():
            break
        direction = (objective.gradient(x + d) - grad) / np.linalg.norm(d)
        sharpness = max(sharpness, float(np.linalg.norm(direction)))
        if not 0 < sharpness < np.inf or not direction.any():
            break
    if not 0 < sharpness < np.inf:  # no curvature found: let the first step have about the length of x
        sharpness = float(np.linalg.norm(grad)) / max(1.0, float(np.linalg.norm(x)))
    names = ("alpha", "beta") if algorithm.momentum is None else ("momentum", "lead")
    return START * largest_stable_lr(sharpness, **{name: getattr(algorithm, name) for name in names})


def stepper(
    algorithm: INNA, objective: Objective, box: Box, x: Array, grad: Array, lr: float | None
) -> tuple[Step, float]:
    """Return the step to repeat, and the first learning rate."""
    if lr is not None:
        return partial(fixed_step, algorithm, objective, box), lr
    return partial(controlled_step, algorithm, objective, box), first_lr(algorithm, objective, box, x, grad)
