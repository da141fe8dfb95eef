"""An order of evaluation in which XLA on the CPU can update the state where it lies.

As the core writes it, the increment and the next velocity both read the old velocity. XLA makes a loop of each on the
CPU; it decides on copies before it decides on an order, cannot know then that one loop comes first, and copies the
velocity. And a scaled gradient that both use, or a root in it, it computes once and takes through memory. So the two
are computed apart here, by the same function: the velocity sees gradient and averages from behind the next parameter.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Step = Callable[[Any, Any], tuple[Any, Any]]
"""From gradient and state to the increment, decay included, and the next state."""


def traced_for_cpu(x: Any) -> bool:
    """Return whether a tensor belongs to a program traced for one CPU; a GPU makes one kernel of it all."""
    if keras.backend.backend() == "jax":
        import jax
        from jax.core import Tracer

        return isinstance(x, Tracer) and jax.default_backend() == "cpu" and jax.device_count() == 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly() and not tf.config.list_physical_devices("GPU")
    return False


def one_behind_the_other(step: Step, gradient: Any, state: Any, theta: Any) -> tuple[Any, Any]:
    """Return ``step(gradient, state)``, the next velocity computed behind ``theta + increment``."""
    delta, soon = step(gradient, state)
    if 0 in theta.shape:
        return delta, soon
    # XLA cannot know that no sign is above 1
    flat: Any = ops.reshape(theta + delta, (-1,))
    sign: Any = ops.sign(flat[0])
    one = ops.where(sign > 1, ops.zeros((), gradient.dtype), ops.ones((), gradient.dtype))
    averages = {name: Averaged(x * one) for name, x in soon._asdict().items() if name not in ("velocity", "step")}
    _, after = step(gradient * one, state._replace(**averages))
    return delta, soon._replace(velocity=after.velocity)


class Averaged:
    """A moving average after its step: for it, ``sigma * average + (1 - sigma) * x`` is what it is already."""

    def __init__(self, value: Any) -> None:
        self.value, self.shape, self.dtype = value, value.shape, value.dtype

    def __rmul__(self, sigma: Any) -> "Averaged":
        return self

    def __add__(self, x: Any) -> Any:
        return self.value
