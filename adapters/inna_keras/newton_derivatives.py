"""Derivatives along a direction, in the autodiff of whichever backend Keras runs on; and layers they are right for."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import keras

from inna_core.newton_summary import Summary

ops: Any = keras.ops  # whose annotations know symbolic tensors alone

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
    """Return the gradients of a loss, the loss, and what else it returns, at tensors."""
    if keras.backend.backend() == "jax":
        import jax

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(values)
        return grads, value, aux
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            value, aux = loss(values)
        return tape.gradient(value, values, unconnected_gradients=tf.UnconnectedGradients.ZERO), value, aux
    import torch

    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in values]
        value, aux = loss(leaves)
        grads = torch.autograd.grad(value, leaves, materialize_grads=True, allow_unused=True)
    return list(grads), value.detach(), [x.detach() for x in aux]


def derivatives(phi: Callable[[Tensors], Any], size: int, dtype: str, order: int) -> Summary:
    """Return g, H and T of phi, a function of a list of `size` scalars, at zero.

    On every backend the entries of the gradient are differentiated one by one with respect to those that follow.
    """
    backend = keras.backend.backend()
    if backend not in ("jax", "tensorflow", "torch"):
        raise NotImplementedError(f"Invalid backend: {backend!r} (expected 'jax', 'tensorflow' or 'torch')")
    mu = [ops.zeros((), dtype=dtype) for _ in range(size)]
    g, rows, third = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[backend](phi, mu, order)
    zero = ops.zeros((), dtype=dtype)
    upper = ops.stack([ops.stack([zero] * s + list(row)) for s, row in enumerate(rows)])
    H = upper + ops.transpose(ops.triu(upper, 1))
    return Summary(ops.stack(list(g)), H, ops.stack(third) if order == 3 else ops.zeros((size,), dtype=dtype))


Rows = tuple[Sequence[Any], list[Sequence[Any]], list[Any]]


def _jax(phi: Callable[[Tensors], Any], mu: Tensors, order: int) -> Rows:
    import jax

    rows, third = [], []
    for s in range(len(mu)):

        def entry(tail: Tensors, s: int = s) -> Any:
            return jax.grad(lambda own: phi([*mu[:s], own, *tail[1:]]))(tail[0])

        def along(own: Any, s: int = s) -> Any:
            return phi([*mu[:s], own, *mu[s + 1 :]])

        rows.append(jax.grad(entry)(mu[s:]))
        if order == 3:
            third.append(jax.grad(jax.grad(jax.grad(along)))(mu[s]))
    return jax.grad(phi)(mu), rows, third


def _tensorflow(phi: Callable[[Tensors], Any], mu: Tensors, order: int) -> Rows:
    import tensorflow

    tf: Any = tensorflow

    zero = tf.UnconnectedGradients.ZERO
    third: list[Any] = []
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        outer.watch(mu)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as middle:
            middle.watch(mu)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(mu)
                loss = phi(mu)
            g: Any = inner.gradient(loss, mu, unconnected_gradients=zero)
        rows = [middle.gradient(g[s], mu[s:], unconnected_gradients=zero) for s in range(len(mu))]
    if order == 3:
        third = [outer.gradient(row[0], mu[s], unconnected_gradients=zero) for s, row in enumerate(rows)]
    return g, rows, third


def _torch(phi: Callable[[Tensors], Any], mu: Tensors, order: int) -> Rows:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def gradient(scalar: Any, of: Tensors, graph: bool) -> Sequence[Any]:
        if not scalar.requires_grad:
            return [torch.zeros_like(m) for m in of]
        return torch.autograd.grad(scalar, of, create_graph=graph, retain_graph=True, materialize_grads=True)

    rows, third = [], []
    with torch.enable_grad():
        mu = [m.detach().requires_grad_() for m in mu]
        with sdpa_kernel(SDPBackend.MATH):
            loss = phi(mu)
        g = gradient(loss, mu, True)
        for s in range(len(mu)):
            row = gradient(g[s], mu[s:], order == 3)
            if order == 3:
                third.append(gradient(row[0], [mu[s]], False)[0])
            rows.append([entry.detach() for entry in row])
    return [entry.detach() for entry in g], rows, third


# Keras hands the moments of normalisation layers to native kernels, whose second or third derivatives are wrong on some
# backend. The same layers made of elementary operations are right on each.


def _moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    mean = ops.mean(x, axis=tuple(axes), keepdims=True)
    return mean, ops.mean((x - mean) * (x - mean), axis=tuple(axes), keepdims=True)


def _normalised(x: Any, mean: Any, variance: Any, eps: float) -> Any:
    return (x - mean) / ops.sqrt(variance + eps)


def _layer_normalisation(layer: Any, inputs: Any) -> Any:
    x = ops.cast(inputs, layer.compute_dtype)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    axes = [axis % len(x.shape) for axis in axes]
    shape = [x.shape[i] if i in axes else 1 for i in range(len(x.shape))]
    if getattr(layer, "rms_scaling", False):
        variance = ops.mean((x - _moments(x, axes)[0]) ** 2, axis=tuple(axes), keepdims=True)
        return x / ops.sqrt(variance + layer.epsilon) * ops.reshape(ops.cast(layer.gamma, x.dtype), shape)
    x = _normalised(x, *_moments(x, axes), layer.epsilon)
    if layer.scale:
        x = x * ops.reshape(ops.cast(layer.gamma, x.dtype), shape)
    return x + ops.reshape(ops.cast(layer.beta, x.dtype), shape) if layer.center else x


def _batch_normalisation(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    if mask is not None:
        raise NotImplementedError("Invalid loss_fn: it calls BatchNormalization with a mask (expected none)")
    x = ops.cast(inputs, layer.compute_dtype)
    axis = layer.axis % len(x.shape)
    shape = [x.shape[i] if i == axis else 1 for i in range(len(x.shape))]
    if training and layer.trainable:
        mean, variance = _moments(x, [i for i in range(len(x.shape)) if i != axis])
    else:
        mean, variance = (ops.reshape(ops.cast(v, x.dtype), shape) for v in (layer.moving_mean, layer.moving_variance))
    x = _normalised(x, mean, variance, layer.epsilon)
    if layer.scale:
        x = x * ops.reshape(ops.cast(layer.gamma, x.dtype), shape)
    return x + ops.reshape(ops.cast(layer.beta, x.dtype), shape) if layer.center else x


def _refusal(name: str) -> Callable[..., Any]:
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Invalid loss_fn: it calls {name} (expected layers with a third derivative)")

    return call


REWRITTEN = {"LayerNormalization": _layer_normalisation, "BatchNormalization": _batch_normalisation}
REFUSED = ("GroupNormalization", "SpectralNormalization", "UnitNormalization", "RMSNormalization")


@contextlib.contextmanager
def differentiable_layers() -> Iterator[None]:
    """While active, Keras' normalisation layers are differentiable three times, or refuse to be called."""
    with contextlib.ExitStack() as stack:
        for name, call in REWRITTEN.items():
            stack.enter_context(mock.patch.object(getattr(keras.layers, name), "call", call))
        for name in REFUSED:
            if hasattr(keras.layers, name):
                stack.enter_context(mock.patch.object(getattr(keras.layers, name), "call", _refusal(name)))
        yield
