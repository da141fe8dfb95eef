"""From summaries to step sizes in training: what happens between two refreshes of Summary-Newton's step sizes.

A training step with gradient g, state m of the algorithm that makes the direction, and step size
eta_s of the group s, is

    u        = the direction of the algorithm at (g, m): its step of size 1, with the sign changed
    theta_s <- theta_s - lambda_1 eta_s u_s
    m       <- the algorithm's next state for the step size min(lambda_1 eta_s, c beta)                    (1)

Every `period` steps, and at each of the first `period` steps, while the direction grows, eta is refreshed, on a batch
of its own:

    summary (g, H, T) -> averages of (g, H, T)
            -> eta* = (1 - p) (step sizes, none negative) + p (step sizes in fixed proportions)
            -> eta <- a eta + (1 - a) eta*, at first eta*
            -> no more than `rise` times the last positive eta; a group's first positive one times `start`      (2)

| symbol   | meaning                                                            | name in code            |
|----------|--------------------------------------------------------------------|-------------------------|
| lambda_1 | fraction of the model's step that is taken                         | ``damping``, lr         |
| p        | share of the proportions in which no descending group stands still | ``share``               |
| a        | weight of the past in the step sizes                               | ``smoothing``           |
| c        | cap on the time step of INNA's velocity, in units of beta          | ``velocity_cap``        |

With INNA's direction u = beta g - v, (1) is INNA with a step size of its own for each group, which the summary finds:
alpha and beta are all that is left to choose. The cap holds the velocity's recurrence inside its stable region where a
group's step is long, see `inna_core.dynamics`.

Reference: P. Wolinski, arXiv 2312.03885, section 3 (the loop, with a momentum direction); INNA: `inna_core.inna`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypedDict, TypeVar

from array_api_compat import array_namespace

from inna_core._validation import as_array, check_parameter, check_update, checked_count, checked_number
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.newton_solver import Loop
from inna_core.newton_summary import (
    NewtonStatus,
    NewtonStepSizes,
    Solver,
    Summary,
    check_order,
    newton_step_sizes,
    nonnegative_step_sizes,
    proportional_step_sizes,
)

DAMPING = 0.3
"""Default of lambda_1 in every host."""


class MomentumState(NamedTuple):
    """State of `Momentum`.

    Attributes:
        momentum: the buffer, like the parameter.
    """

    momentum: Array


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, buf <- m buf + g, theta <- theta - lr buf: the direction of the paper.

    Args:
        momentum: m in [0, 1).

    Raises:
        ValueError, TypeError: if it is not a number in its range.

    Example:
        >>> import numpy as np
        >>> algorithm, theta = Momentum(0.9), np.asarray([1.0])
        >>> delta, state = algorithm.update(theta, algorithm.init(theta), theta, lr=0.5)
        >>> delta
        array([-0.5])
    """

    momentum: Scalar = 0.9

    state_type: ClassVar[type] = MomentumState
    default_lr: ClassVar[float] = 0.1
    default_weight_decay: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", checked_number("momentum", self.momentum, below=1.0))

    def init(self, theta: Array, xp: Namespace | None = None) -> MomentumState:
        """Return the state before the first step: an empty buffer."""
        check_parameter(theta)
        namespace = array_namespace(theta) if xp is None else xp
        return MomentumState(namespace.zeros_like(theta))

    def update(
        self, grad: Array, state: MomentumState, theta: Array, lr: Scalar, xp: Namespace | None = None
    ) -> tuple[Array, MomentumState]:
        """Return the increment of the parameter and the next state; see `inna_core.INNA.update`."""
        lr = checked_number("lr", lr)
        check_update(xp, MomentumState, grad, state, theta, {"lr": lr, "momentum": self.momentum})
        buffer = self.momentum * state.momentum + grad
        return as_array(-lr * buffer), MomentumState(as_array(buffer))


def direction(algorithm: Any, grad: Array, state: Any, theta: Array, xp: Namespace | None = None) -> Array:
    """Return u, the algorithm's step of size 1 with the sign changed; see the top of this file."""
    delta, _ = algorithm.update(grad, state, theta, 1.0, xp)
    return -delta


def next_state(
    algorithm: Any, grad: Array, state: Any, theta: Array, step: Scalar, velocity_cap: float, xp: Namespace
) -> Any:
    """Return the algorithm's state after a step of a size lambda_1 eta_s, capped at velocity_cap beta, equation (1).

    Args:
        algorithm: as in `inna_core`; one without ``beta`` has no cap.
        grad: gradient, like theta.
        state: the algorithm's.
        theta: parameter.
        step: lambda_1 eta_s >= 0, a float or a 0-d array of theta's dtype.
        velocity_cap: c.
        xp: array namespace.
    """
    beta = getattr(algorithm, "beta", None)
    if beta is not None:
        cap = velocity_cap * beta
        step = min(step, cap) if isinstance(step, float) else xp.where(step < cap, step, cap)
    return algorithm.update(grad, state, theta, step, xp)[1]


def checked_algorithm(algorithm: Any) -> Any:
    """Return the algorithm that makes the direction, `Momentum` for None.

    Raises:
        TypeError: if it is not one, a class in place of an object, say.
    """
    if algorithm is None:
        return Momentum()
    if isinstance(algorithm, type) or not all(hasattr(algorithm, name) for name in ("init", "update", "state_type")):
        raise TypeError(f"Invalid algorithm: {algorithm!r} (expected an algorithm of inna_core, as in INNA())")
    return algorithm


class StepSizeState(NamedTuple):
    """State of `StepSizes`, arrays of one framework.

    Attributes:
        refreshes: number of summaries taken in, 0-d int32.
        gradient: the last summaries' g, or their average, shape (window, S).
        hessian: likewise H, shape (window, S, S).
        third: likewise T, shape (window, S).
        eta: exponential average of the step sizes, shape (S,).
        ceiling: what the next step sizes may be at most, shape (S,).
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


class StepSizeSettings(TypedDict, total=False):
    """The keywords of `StepSizes`, for the signatures of functions that take them as ``**settings``."""

    damping_int: Scalar
    period: int
    order: int
    average: float
    window: int
    warmup: int
    smoothing: float
    start: float
    rise: float
    clip: bool
    share: float
    third_floor: float
    velocity_cap: float


@dataclass(frozen=True)
class StepSizes:
    """How step sizes follow from one summary after another, equation (2), and what else a host has to know for that.

    Args:
        damping_int: lambda_int of `newton_step_sizes`, >= 0.
        period: steps between two summaries, >= 1.
        order: 3, or 2 for a model without third derivatives.
        average: weight of the past in a moving average of (g, H, T), in [0, 1); 0 takes each summary as it is.
        window: number of last summaries whose mean is taken, >= 1; needs average = 0 if it is more than 1.
        warmup: number of first summaries during which the step sizes stay 0, while the averages fill.
        smoothing: a, weight of the past in the step sizes, in [0, 1).
        start: fraction of its first step size with which a group begins, in (0, 1]; `rise` lets it grow from there.
        rise: largest factor by which a step size may grow from one summary to the next, > 0, infinity for none.
        clip: whether groups whose step size would be negative stand still, see `nonnegative_step_sizes`; otherwise
            they step backward.
        share: weight of `proportional_step_sizes`, in which no group stands still whose direction descends, in a mean
            with those; in [0, 1], without clip it has no meaning.
        third_floor: kappa of `newton_step_sizes`.
        velocity_cap: c > 0, largest time step of the algorithm's state, in units of its beta.

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

    def __post_init__(self) -> None:
        checked_number("damping_int", self.damping_int)
        checked_number("average", self.average, below=1.0)
        checked_number("smoothing", self.smoothing, below=1.0)
        checked_number("third_floor", self.third_floor)
        checked_number("velocity_cap", self.velocity_cap, positive=True)
        for name in ("start", "share"):
            if checked_number(name, getattr(self, name), positive=name == "start") > 1:
                raise ValueError(f"Invalid {name}: {getattr(self, name)!r} (expected at most 1)")
        if self.rise != float("inf"):
            checked_number("rise", self.rise, positive=True)
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
            summary: of any values; its framework, dtype and S count.
        """
        xp = array_namespace(*summary)
        g, H, T = (xp.zeros((self.window, *x.shape), dtype=x.dtype) for x in summary)
        none = xp.asarray(0, dtype=xp.int32)
        return StepSizeState(
            none, g, H, T, xp.zeros_like(g[0, :]), xp.full_like(g[0, :], xp.inf), xp.zeros_like(g[0, 0]), none + 0
        )

    def check_state(self, state: Mapping[str, Any], size: int) -> None:
        """Refuse a saved state, by field, that is not one of this rule and S groups.

        Raises:
            ValueError: naming what differs.
        """
        w, S = self.window, size
        shapes = dict.fromkeys(StepSizeState._fields, ())
        shapes |= {"gradient": (w, S), "hessian": (w, S, S), "third": (w, S), "eta": (S,), "ceiling": (S,)}
        saved = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
        if saved != shapes:
            raise ValueError(f"Invalid state: step sizes of shapes {saved} (expected {shapes})")

    def update(self, summary: Summary, state: StepSizeState, loop: Loop | None = None) -> StepSizeState:
        """Take in a summary. One that is not finite changes nothing but the status.

        Args:
            summary: of the loss along the present direction.
            state: from `init` or the previous `update`.
            loop: see `newton_step_sizes`.

        Returns:
            The next state; the arguments stay unchanged.
        """
        xp = array_namespace(*summary)
        k = state.refreshes
        past = [state.gradient, state.hessian, state.third]
        slot = xp.arange(self.window, dtype=xp.int32) == k % self.window
        kept = []
        for old, new in zip(past, summary, strict=True):
            here = xp.reshape(slot, (self.window, *(1 for _ in new.shape)))
            weight = xp.where(k == 0, xp.zeros_like(old), xp.full_like(old, self.average))
            kept.append(xp.where(here, weight * old + (1 - weight) * new[None, ...], old))
        filled = xp.where(k + 1 < self.window, k + 1, xp.full_like(k, self.window))
        g, H, T = (xp.sum(x, axis=0) / xp.astype(filled, x.dtype) for x in kept)
        # a mean of rounded numbers may lose symmetry, and its third derivatives are a mean of signs
        solve = partial(newton_step_sizes, damping=self.damping_int, third_floor=self.third_floor, loop=loop)
        found = self._none_negative(Summary(g, H, T), solve, loop) if self.clip else solve(g, H, T)

        first = k <= self.warmup
        weight = xp.where(first, xp.zeros_like(found.eta), xp.full_like(found.eta, self.smoothing))
        eta = weight * state.eta + (1 - weight) * found.eta
        eta = xp.where((eta > 0) & (state.ceiling == xp.inf), self.start * eta, eta)
        eta = xp.where(eta > state.ceiling, state.ceiling, eta)
        eta = xp.where(k < self.warmup, xp.zeros_like(eta), eta)
        positive = eta > 0
        ceiling = xp.where(positive, self.rise * xp.where(positive, eta, xp.ones_like(eta)), state.ceiling)
        new = StepSizeState(k + 1, kept[0], kept[1], kept[2], eta, ceiling, found.radius, found.status)
        good = found.status != int(NewtonStatus.FAILED)
        chosen = (xp.where(good, a, b) for a, b in zip(new, state, strict=True))
        return StepSizeState(*chosen)._replace(status=found.status)

    def _none_negative(self, summary: Summary, solve: Solver, loop: Loop | None) -> NewtonStepSizes:
        found = nonnegative_step_sizes(summary, solve, loop)
        if self.share == 0.0:
            return found
        xp = array_namespace(*summary)
        even = proportional_step_sizes(*summary, damping=self.damping_int, third_floor=self.third_floor, loop=loop)
        status = xp.where(even.status > found.status, even.status, found.status)
        return NewtonStepSizes((1 - self.share) * found.eta + self.share * even.eta, found.radius, status)

    def step_sizes(self, state: StepSizeState) -> Array:
        """Return eta, shape (S,)."""
        return state.eta

    def due(self, step: Any, refreshes: Any) -> Any:
        """Return whether a training step refreshes the step sizes.

        Args:
            step: number of training steps made before it.
            refreshes: number of summaries taken in.
        """
        # every step at first, while the direction is still growing
        return (step % self.period == 0) | (step < self.period) | (refreshes < self.warmup)


Function = TypeVar("Function", bound=Callable[..., Any])


def with_settings(function: Function) -> Function:
    """Show the keywords of `StepSizes`, and their defaults, in place of ``**settings`` in a function's signature."""
    own, shown = inspect.signature(StepSizes), inspect.signature(function)
    kept = [parameter for parameter in shown.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    added = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    function.__signature__ = shown.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return function


class StepSizeRecord(NamedTuple):
    """What to log of a refresh.

    Attributes:
        step: number of training steps made before it.
        step_sizes: lambda_1 eta_s by label of the group, as used from this step on.
        radius: r.
        status: of the solution.
    """

    step: int
    step_sizes: dict[str, float]
    radius: float
    status: NewtonStatus
