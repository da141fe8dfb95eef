"""Gradients and compilation on whichever backend Keras runs."""

from collections.abc import Callable
from typing import Any

import keras

Tensors = list[Any]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors, compiled where the backend compiles."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    return function


def gradients(loss: Callable[[Tensors], tuple[Any, Tensors]], values: Tensors) -> tuple[Tensors, Any, Tensors]:
    """Return the gradients of a loss at some values, the loss, and what else it returns."""
    if keras.backend.backend() == "jax":
        import jax

        (value, others), grads = jax.value_and_grad(loss, has_aux=True)(values)
        return grads, value, others
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            value, others = loss(values)
        return tape.gradient(value, values, unconnected_gradients=tf.UnconnectedGradients.ZERO), value, others
    import torch

    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in values]
        value, others = loss(leaves)
        grads = torch.autograd.grad(value, leaves, materialize_grads=True, allow_unused=True)
    return list(grads), value.detach(), [x.detach() for x in others]
