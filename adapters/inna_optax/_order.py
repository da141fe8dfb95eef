"""An order of evaluation in which XLA on the CPU can update the state where it lies.

As the core writes it, the increment and the next state both read the old state. XLA makes a loop of each on the CPU; it
decides on copies before it decides on an order, cannot know then that one loop comes first, and copies the old state,
which takes three times as long as the whole step should. And a scaled gradient that both use it computes once and takes
through memory. So the two are computed apart here, by the same function, one behind the other: moving averages, which
stand in the increment as they will be; then the increment; then the velocity, whose step size comes from behind the
next parameter.

XLA finds ``theta + increment`` to be the sum that `optax.apply_updates` makes, and computes it once. Elsewhere than on
one CPU the core's order is the better one: GPUs should make one kernel of it (not measured), and several devices would
have to agree on the step size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from inna_core.algorithm import Array, Scalar

Step = Callable[[Array, Any, Scalar], tuple[Array, Any]]
"""From gradient, state and step size to the increment, decay included, and the next state."""


def on_one_cpu() -> bool:
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def one_behind_the_other(step: Step, grad: Array, state: Any, theta: Array, lr: Scalar) -> tuple[Array, Any]:
    """Return ``step(grad, state, lr)``, the next velocity computed behind ``theta + increment``."""
    _, soon = step(grad, state, lr)
    # else XLA would see that the scaled gradient is the same each time
    g, new = jax.lax.optimization_barrier((grad, soon))
    averages = {name: Averaged(x) for name, x in new._asdict().items() if name not in ("velocity", "step")}
    delta, _ = step(g, state._replace(**averages), lr)
    if theta.size == 0:
        return delta, soon
    # XLA cannot know that no sign is above 1
    never = jnp.sign((theta + delta)[(0,) * theta.ndim]) > 1
    _, after = step(grad, state, jnp.where(never, 0.0, jnp.asarray(lr, theta.dtype)))
    return delta, after


class Averaged:
    """A moving average after its step: for it, ``sigma * average + (1 - sigma) * x`` is what it is already."""

    def __init__(self, value: jax.Array) -> None:
        self.value, self.shape, self.dtype = value, value.shape, value.dtype

    def __rmul__(self, sigma: Scalar) -> "Averaged":
        return self

    def __add__(self, x: Array) -> jax.Array:
        return self.value
