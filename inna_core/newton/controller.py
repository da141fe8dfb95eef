"""Step sizes during training: how summary-Newton uses successive summaries.

A training step with gradient g, state m of the algorithm that gives the direction, and step size
eta_s of the group s, is

    u        = the algorithm's step of size 1 at (g, m), with the sign changed
    theta_s <- theta_s - lambda_1 eta_s u_s
    m       <- the algorithm's next state for the step size min(lambda_1 eta_s, c beta)                    (1)

Every `period` steps, and at each of the first `period` steps, while the direction still grows, eta is refreshed, on a
separate batch:

    summary (g, H, T) -> averages of (g, H, T)
            -> eta* = (1 - p) (step sizes, none negative) + p (step sizes in fixed proportions)
            -> eta <- a eta + (1 - a) eta*, at first eta*
            -> at most `rise` times the last positive eta; a group's first positive one times `start`      (2)

With a finite `trust`, lambda_1 eta_s is for each parameter at most r max(rms(theta), 1e-3) / rms(u).     (3)

| symbol   | meaning                                                            | name in code            |
|----------|--------------------------------------------------------------------|-------------------------|
| lambda_1 | fraction of the model's step that is taken                         | ``damping``, lr         |
| p        | weight of the step sizes in fixed proportions                      | ``share``               |
| a        | weight of the past in the step sizes                               | ``smoothing``           |
| c        | cap on the time step of INNA's velocity, in units of beta          | ``velocity_cap``        |
| r        | longest step of a parameter, in units of its root mean square      | ``trust``               |

With INNA's direction u = beta g - v, (1) is INNA with one step size per group, found from summaries; only alpha and
beta are left to choose. The cap keeps the recurrence of the velocity stable where a group's step is long, see
`inna_core.dynamics`.

Reference: P. Wolinski, arXiv 2312.03885, section 3 (the loop, with a momentum direction); INNA: `inna_core.inna`. (3):
the trust coefficient of You et al., arXiv 1708.03888 (LARS), as an upper bound; the floor 1e-3, for parameters that
begin at 0, is Adafactor's (Shazeer and Stern, ICML 2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from inna_core._validation import check_algorithm, checked_count, checked_number
from inna_core.algorithm import Array, Scalar
from inna_core.momentum import Momentum
from inna_core.newton.cubic_solver import Loop
from inna_core.newton.step_sizes import (
    NewtonStatus,
    NewtonStepSizes,
    Solver,
    newton_step_sizes,
    nonnegative_step_sizes,
    proportional_step_sizes,
)
from inna_core.newton.summary import Summary, check_order

DAMPING = 0.3
"""Default of lambda_1 in every host."""


def checked_algorithm(algorithm: Any) -> Any:
    """Return the algorithm that gives the direction, `Momentum` for None.

    Raises:
        TypeError: if it is not an algorithm object (a class, for example).
        ValueError: if it is given by momentum and lead.
    """
    if algorithm is None:
        return Momentum()
    check_algorithm(algorithm)
    if getattr(algorithm, "beta", 0.0) is None:  # its step is not proportional to the step size
        raise ValueError(f"Invalid algorithm: {algorithm!r} (expected alpha and beta in place of momentum)")
    return algorithm


def checked_rule(rule: Any) -> "StepSizes":
    """Return the rule.

    Raises:
        TypeError: if it is not a `StepSizes`.
    """
    if not isinstance(rule, StepSizes):
        raise TypeError(f"Invalid rule: {rule!r} (expected a StepSizes of inna_core, as in StepSizes(period=10))")
    return rule


class StepSizeState(NamedTuple):
    """State of `StepSizes`, arrays of one framework.

    Attributes:
        refreshes: number of summaries so far, 0-d int32.
        gradient: the last summaries' g, or their average, shape (window, S).
        hessian: likewise H, shape (window, S, S).
        third: likewise T, shape (window, S).
        eta: exponential average of the step sizes, shape (S,).
        ceiling: upper bound of the next step sizes, shape (S,).
        radius: of the last solution, 0-d.
        status: `NewtonStatus` of the last solution, 0-d int32.
    """

    refreshes: Array
    gradient: Array
    hessian: Array
    third: Array
    eta: Array
    ceiling: Array
    radius: Array
    status: Array


@dataclass(frozen=True)
class StepSizes:
    """How step sizes follow from one summary after another, equation (2): the ``rule`` of every host.

    Args:
        damping_int: lambda_int of `newton_step_sizes`, >= 0.
        period: steps between two summaries, >= 1.
        order: 3, or 2 for a model without third derivatives.
        average: weight of the past in a moving average of (g, H, T), in [0, 1); 0 uses each summary as it is.
        window: number of last summaries to take the mean of, >= 1; above 1 it needs average = 0.
        warmup: number of first summaries during which the step sizes stay 0, while the averages fill up.
        smoothing: a, weight of the past in the step sizes, in [0, 1).
        start: fraction of its first positive step size with which a group begins, in (0, 1]; it grows by `rise`.
        rise: largest factor by which a step size may grow from one summary to the next, > 0; infinity for no limit.
        clip: whether groups whose step size would be negative stand still, see `nonnegative_step_sizes`; otherwise
            they step backward.
        share: p in [0, 1]: the step sizes are 1 - p times those of `nonnegative_step_sizes`, which may be 0, plus p
            times those of `proportional_step_sizes`, positive wherever the direction descends. Ignored without clip.
        third_floor: kappa of `newton_step_sizes`.
        velocity_cap: c > 0, largest time step of the algorithm's state, in units of its beta.
        trust: r > 0, the longest step of a parameter in units of its root mean square, equation (3); infinity for no
            limit. Logged step sizes are those before this limit.

    Raises:
        ValueError, TypeError: if an argument is not a number in its range.

    Example:
        >>> import numpy as np
        >>> rule = StepSizes()
        >>> one = Summary(np.asarray([140.25]), np.asarray([[840.75]]), np.asarray([2185.625]))
        >>> state = rule.update(one, rule.init(one))
        >>> (rule.step_sizes(state) / rule.start).round(6)
        array([0.140981])
    """

    damping_int: Scalar = 1.0
    period: int = 10
    order: int = 3
    average: float = 0.95
    window: int = 1
    warmup: int = 0
    smoothing: float = 0.0
    start: float = 1 / 32
    rise: float = 2.0
    clip: bool = True
    share: float = 0.3
    third_floor: float = 0.0
    velocity_cap: float = 0.5
    trust: float = float("inf")

    def __post_init__(self) -> None:
        checked_number("damping_int", self.damping_int)
        checked_number("average", self.average, below=1.0)
        checked_number("smoothing", self.smoothing, below=1.0)
        checked_number("third_floor", self.third_floor)
        checked_number("velocity_cap", self.velocity_cap, positive=True)
        for name in ("start", "share"):
            if checked_number(name, getattr(self, name), positive=name == "start") > 1:
                raise ValueError(f"Invalid {name}: {getattr(self, name)!r} (expected at most 1)")
        for name in ("rise", "trust"):
            if getattr(self, name) != float("inf"):
                checked_number(name, getattr(self, name), positive=True)
        for name, least in (("period", 1), ("window", 1), ("warmup", 0)):
            checked_count(name, getattr(self, name), least)
        check_order(self.order)
        if not isinstance(self.clip, bool):
            raise TypeError(f"Invalid clip: {self.clip!r} (expected True or False)")
        if self.average and self.window > 1:
            raise ValueError(f"Invalid window: {self.window!r} (expected 1, since average is {self.average!r})")

    def init(self, summary: Summary) -> StepSizeState:
        """Return the state before the first summary, arrays like a summary's: step sizes 0.

        Args:
            summary: with any values; only its framework, dtype and S matter.

        Returns:
            The state.
        """
        xp = array_namespace(*summary)
        g, H, T = (xp.zeros((self.window, *x.shape), dtype=x.dtype) for x in summary)
        zero, eta = xp.asarray(0, dtype=xp.int32), xp.zeros_like(g[0, :])
        return StepSizeState(zero, g, H, T, eta, xp.full_like(eta, xp.inf), xp.zeros_like(g[0, 0]), zero + 0)

    def check_state(self, state: Mapping[str, Any], size: int) -> None:
        """Refuse a saved state whose shapes do not fit this rule and the number of groups.

        Args:
            state: arrays by the fields of `StepSizeState`.
            size: number of groups, S.

        Raises:
            ValueError: if a shape differs.
        """
        w, S = self.window, size
        shapes = dict.fromkeys(StepSizeState._fields, ())
        shapes |= {"gradient": (w, S), "hessian": (w, S, S), "third": (w, S), "eta": (S,), "ceiling": (S,)}
        saved = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
        if saved != shapes:
            raise ValueError(f"Invalid state: step sizes of shapes {saved} (expected {shapes})")

    def update(self, summary: Summary, state: StepSizeState, loop: Loop | None = None) -> StepSizeState:
        """Return the next state after a summary. A summary that is not finite changes only the status.

        Args:
            summary: of the loss along the current direction.
            state: from `init` or the previous `update`.
            loop: see `newton_step_sizes`.

        Returns:
            The next state; the arguments stay unchanged.
        """
        xp = array_namespace(*summary)
        k = state.refreshes
        past = [state.gradient, state.hessian, state.third]
        current = xp.arange(self.window, dtype=xp.int32) == k % self.window
        kept = []
        for old, new in zip(past, summary, strict=True):
            is_current = xp.reshape(current, (self.window, *(1 for _ in new.shape)))
            weight = xp.where(k == 0, xp.zeros_like(old), xp.full_like(old, self.average))
            kept.append(xp.where(is_current, weight * old + (1 - weight) * new[None, ...], old))
        filled = xp.where(k + 1 < self.window, k + 1, xp.full_like(k, self.window))
        g, H, T = (xp.sum(x, axis=0) / xp.astype(filled, x.dtype) for x in kept)
        solve = partial(newton_step_sizes, damping=self.damping_int, third_floor=self.third_floor, loop=loop)
        found = self._nonnegative(Summary(g, H, T), solve, loop) if self.clip else solve(g, H, T)

        first = k <= self.warmup
        weight = xp.where(first, xp.zeros_like(found.eta), xp.full_like(found.eta, self.smoothing))
        eta = weight * state.eta + (1 - weight) * found.eta
        eta = xp.where((eta > 0) & (state.ceiling == xp.inf), self.start * eta, eta)
        eta = xp.where(eta > state.ceiling, state.ceiling, eta)
        eta = xp.where(k < self.warmup, xp.zeros_like(eta), eta)
        positive = eta > 0
        ceiling = xp.where(positive, self.rise * xp.where(positive, eta, xp.ones_like(eta)), state.ceiling)
        new = StepSizeState(k + 1, kept[0], kept[1], kept[2], eta, ceiling, found.radius, found.status)
        solved = found.status != int(NewtonStatus.FAILED)
        chosen = (xp.where(solved, a, b) for a, b in zip(new, state, strict=True))
        return StepSizeState(*chosen)._replace(status=found.status)

    def _nonnegative(self, summary: Summary, solve: Solver, loop: Loop | None) -> NewtonStepSizes:
        found = nonnegative_step_sizes(summary, solve, loop)
        if self.share == 0.0:
            return found
        xp = array_namespace(*summary)
        proportional = proportional_step_sizes(
            *summary, damping=self.damping_int, third_floor=self.third_floor, loop=loop
        )
        status = xp.where(proportional.status > found.status, proportional.status, found.status)
        return NewtonStepSizes((1 - self.share) * found.eta + self.share * proportional.eta, found.radius, status)

    def step_sizes(self, state: StepSizeState) -> Array:
        """Return eta, shape (S,)."""
        return state.eta

    def due(self, step: Any, refreshes: Any) -> Any:
        """Return whether a training step refreshes the step sizes.

        Args:
            step: number of training steps before it.
            refreshes: number of summaries so far.

        Returns:
            A bool, or a 0-d array where an argument is one.
        """
        # at first every step, while the direction still grows
        return (step % self.period == 0) | (step < self.period) | (refreshes < self.warmup)


class StepSizeRecord(NamedTuple):
    """A refresh of the step sizes, for logs.

    Attributes:
        step: number of training steps before it.
        step_sizes: lambda_1 eta_s by label of the group, as used from this step on.
        radius: r.
        status: of the solution from which the step sizes follow.
    """

    step: int
    step_sizes: dict[str, float]
    radius: float
    status: NewtonStatus
