"""The network in Keras, on the backend of this process.

The layers are Keras' own, with their variables. Where they would compute in float32 (means and variances on JAX and
torch, products of matrices on torch), they do so here in float64.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

import inna_keras
from conformance_tests.portable import network
from conformance_tests.portable.network import CHANNELS, EPSILON, LENGTH, VOCABULARY, WIDTH, Arrays, Leg


class Normalization(keras.layers.LayerNormalization):
    def call(self, inputs: Any) -> Any:
        total: Any = ops.sum(inputs, axis=-1, keepdims=True)
        centred = inputs - total / CHANNELS
        squares: Any = ops.sum(centred * centred, axis=-1, keepdims=True)
        variance = squares / CHANNELS
        return centred * ops.rsqrt(variance + self.epsilon) * self.gamma + self.beta


class Activation(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return ops.sum(inputs * ops.rsqrt(1 + inputs * inputs), axis=1) / inputs.shape[1]


class Dense(keras.layers.Dense):
    def call(self, inputs: Any, training: Any = None) -> Any:
        products: Any = ops.einsum("bi,io->bo", inputs, self.kernel)
        return products + self.bias


def make_network() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int64"),
            layers.Embedding(VOCABULARY, CHANNELS, name="embedding"),
            layers.Conv1D(CHANNELS, WIDTH, name="conv"),
            Normalization(epsilon=EPSILON, name="norm"),
            Activation(),
            Dense(CHANNELS, name="dense"),
        ],
        name="net",
    )


def tensorflow_gradient(model: Any) -> Any:
    import tensorflow as tf

    def gradient(tokens: Any, targets: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(tokens) - targets) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    return gradient


def jax_gradient(model: Any) -> Any:
    import jax

    def loss(trainable: Any, tokens: Any, targets: Any) -> Any:
        outputs, _ = model.stateless_call(trainable, [], tokens)
        return ((outputs - targets) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))
    return lambda tokens, targets: gradient([v.value for v in model.trainable_variables], tokens, targets)


def torch_gradient(model: Any) -> Any:
    import torch

    def gradient(tokens: Any, targets: Any) -> list[Any]:
        model.zero_grad()
        ((model(torch.from_numpy(tokens)) - torch.from_numpy(targets)) ** 2).mean().backward()
        return [v.value.grad for v in model.trainable_variables]

    return gradient


GRADIENTS = {"tensorflow": tensorflow_gradient, "jax": jax_gradient, "torch": torch_gradient}


def run(leg: Leg) -> Arrays:
    """Run a part of a training; return the parameters at its end."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # which follows floatx only until it is first read
    try:
        return run_in_float64(leg)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def run_in_float64(leg: Leg) -> Arrays:
    training = leg.training
    model = make_network()
    variables = {v.path.removeprefix("net/"): v for v in model.trainable_variables}
    for name, value in network.initial_parameters().items():
        variables[name].assign(value)
    optimizer = getattr(inna_keras, training.algorithm)(
        inna_keras.PowerDecay(training.lr, training.q), weight_decay=training.weight_decay, **training.hyper
    )
    model.compile(optimizer=optimizer, loss="mse")
    if leg.load:
        layout = network.layout(leg.source, "keras")
        loaded = inna_keras.load_state(leg.load, model, layout=layout)
        iterations: Any = ops.convert_to_numpy(optimizer.iterations)
        assert loaded.step == leg.first == int(iterations)
    gradient = GRADIENTS[keras.backend.backend()](model)
    for k in range(leg.first, leg.last):
        optimizer.apply(gradient(*network.batch(k)), model.trainable_variables)
    if leg.save:
        inna_keras.save_state(leg.save, model)
    return {name: np.array(ops.convert_to_numpy(v)) for name, v in variables.items()}
