"""An order of evaluation in which XLA can update the state where it lies.

As the core writes it, the increment and the next state both read the old state. XLA decides on copies before it decides
on an order, and cannot know then that one of the two comes first: on the CPU, where it makes a loop of each, it copies the
old state, which takes three times as long as the whole step should. And a scaled gradient that both use it computes once
and takes through memory. So the increment is computed separately, and from the *next* state. Moving averages stand there
as they are needed. The velocity is recovered: with q the (scaled) gradient and r = 1 - alpha gamma, eliminating v from
the core's two lines gives

    delta = gamma (v - beta q) = (gamma / r) (v' - (beta - gamma) q)

in exact arithmetic. Rounding errors of v' grow by 1/r, so this is for r >= 1/2 alone. Traced hyperparameters may take r
anywhere, through 0 even, and read the old velocity.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.schedules import PowerDecay


@dataclass(frozen=True)
class Reordered:
    """An algorithm of `inna_core`, its increment computed behind its next state.

    Args:
        algorithm: the algorithm; it computes all that is computed here, but for the line above.
        recovers: whether the increment reads the next velocity, rather than the old one.
    """

    algorithm: Any
    recovers: bool

    @property
    def alpha(self) -> Scalar:
        return self.algorithm.alpha

    @property
    def beta(self) -> Scalar:
        return self.algorithm.beta

    def update(self, grad: Array, state: Any, theta: Array, lr: Scalar, xp: Namespace) -> tuple[Array, Any]:
        """Return the increment and the next state, as the algorithm's own `update`."""
        _, after = self.algorithm.update(grad, state, theta, lr, xp)
        # else XLA sees that the scaled gradient is the same
        g, new = jax.lax.optimization_barrier((grad, after))
        averages = {name: Averaged(x) for name, x in new._asdict().items() if name not in ("velocity", "step")}
        state = state._replace(**averages)
        if not self.recovers:
            delta, _ = self.algorithm.update(g, state, theta, lr, xp)
            return delta, after
        # from rest, with beta = lr = 1, the algorithm's increment is -q
        unit, rest = replace(self.algorithm, alpha=0.0, beta=1.0), state._replace(velocity=jnp.zeros_like(g))
        minus_q, _ = unit.update(g, rest, theta, 1.0, xp)
        return lr / (1 - self.alpha * lr) * (new.velocity + (self.beta - lr) * minus_q), after


class Averaged:
    """A moving average after its step: for it, ``sigma * average + (1 - sigma) * x`` is what it is already."""

    def __init__(self, value: jax.Array) -> None:
        self.value, self.shape, self.dtype = value, value.shape, value.dtype

    def __rmul__(self, sigma: Scalar) -> "Averaged":
        return self

    def __add__(self, x: Array) -> jax.Array:
        return self.value


def velocity_lasts(alpha: Any, learning_rate: Any) -> bool:
    """Return whether alpha lr <= 1/2 in every step, as far as that can be known before the first one."""
    largest = learning_rate.lr if isinstance(learning_rate, PowerDecay) else learning_rate
    return isinstance(alpha, float) and isinstance(largest, float) and alpha * largest <= 0.5
