"""Differences between the backends' tensors: sparse gradients, rounding under a compiler, tracing."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from inna_core._validation import is_narrow, is_real_floating


def traced_for_one_cpu(x: Any) -> bool:
    """Return whether a tensor is traced for a program that XLA compiles for one CPU."""
    if keras.backend.backend() == "jax":
        import jax
        from jax.core import Tracer

        return isinstance(x, Tracer) and jax.default_backend() == "cpu" and jax.device_count() == 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly() and not tf.config.list_physical_devices("GPU")
    return False


def checked_gradient(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a dense tensor of the variable's shape, refused if it is not real floating point."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):
            # `tf.convert_to_tensor` would warn, and loses the shape where that is computed
            gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    if keras.backend.backend() == "jax":
        from jax.experimental.sparse import JAXSparse

        if isinstance(gradient, JAXSparse):
            gradient = gradient.todense()
    if not hasattr(gradient, "dtype"):
        gradient = ops.convert_to_tensor(gradient)
    if not is_real_floating(gradient):
        raise TypeError(
            f"Invalid grads: dtype {gradient.dtype} for {variable.name} (expected a real floating-point dtype)"
        )
    # while tracing, TensorFlow may not know (a part of) a shape
    expected = tuple(variable.shape)
    known = tuple(gradient.shape) if getattr(gradient.shape, "rank", 0) is not None else (None,) * len(expected)
    if len(known) != len(expected) or any(n not in (None, m) for n, m in zip(known, expected, strict=True)):
        raise ValueError(f"Invalid grads: shape {known} for {variable.name} (expected {expected})")
    return ops.reshape(gradient, expected) if None in known else gradient


def rounding_to(variable: Any) -> Callable[[Any], Any]:
    """Return a function that rounds float32 tensors to a variable's precision and leaves them float32.

    It works on the bits (to nearest, ties to even), because XLA may drop a cast there and back.
    """
    if not is_narrow(variable):
        return lambda x: x
    half = keras.backend.standardize_dtype(variable.dtype) == "float16"
    dropped = 13 if half else 16

    def rounded(x: Any) -> Any:
        bits: Any = ops.view(x, "int32")
        odd: Any = ops.bitwise_and(ops.right_shift(bits, dropped), 1)
        bits = ops.bitwise_and(bits + ((1 << (dropped - 1)) - 1) + odd, -(1 << dropped))
        y: Any = ops.view(bits, "float32")
        if half:
            size: Any = ops.abs(x)
            sign: Any = ops.sign(x)
            # Below float16's normal numbers the spacing is 2^-24. Adding and subtracting a constant with that spacing
            # would round too, but XLA drops that.
            multiple: Any = ops.round(x * 2.0**24)
            y = ops.where(ops.less(size, 2.0**-14), multiple * 2.0**-24, y)
            y = ops.where(ops.greater_equal(size, 65520.0), sign * math.inf, y)
        return ops.where(ops.isnan(x), x, y)  # the addition may carry a NaN's bits into the sign

    return rounded
