"""Keras networks with every layer in the middle, in float64; imported only where a Keras backend has been chosen."""

from typing import Any

import keras
import numpy as np
from keras import layers

ops: Any = keras.ops  # whose annotations know symbolic tensors alone

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")


class Nested(layers.Layer):
    """A layer that hides a model."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any, training: Any = None) -> Any:
        return self.inner(x, training=training)


def whitened(x: Any) -> Any:
    mean, variance = ops.moments(x, axes=[0], keepdims=True)
    return (x - mean) / ops.sqrt(variance + 0.1)


LAYERS: dict[str, Any] = {
    "Dense": lambda: layers.Dense(5, "tanh"),
    "Conv1D": lambda: layers.Conv1D(3, 2),
    "Conv2D": lambda: layers.Conv2D(3, 2),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(2),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(3, 2),
    "MaxPooling2D": lambda: layers.MaxPooling2D(2),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2),
    "GlobalAveragePooling2D": lambda: layers.GlobalAveragePooling2D(),
    "LayerNormalization": lambda: layers.LayerNormalization(epsilon=0.1),
    "LayerNormalization, axes apart": lambda: layers.LayerNormalization((1, 3), epsilon=0.1),  # type: ignore[arg-type]
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "BatchNormalization, second axis": lambda: layers.BatchNormalization(axis=1),
    "GroupNormalization": lambda: layers.GroupNormalization(2, epsilon=0.1),
    "RMSNormalization": lambda: layers.RMSNormalization(epsilon=0.1),
    "UnitNormalization": lambda: layers.UnitNormalization(),
    "nested layers": lambda: Nested(keras.Sequential([layers.LayerNormalization(epsilon=0.1), layers.Dense(3)])),
    "moments of one's own": lambda: layers.Lambda(whitened),
    "relu": lambda: layers.Activation("relu"),
    "gelu": lambda: layers.Activation("gelu"),
    "silu": lambda: layers.Activation("silu"),
    "softplus": lambda: layers.Activation("softplus"),
    "softmax": lambda: layers.Activation("softmax"),
    "SimpleRNN": lambda: layers.SimpleRNN(4),
    "Embedding": lambda: layers.Embedding(5, 3),
}

INPUT_SHAPES = {2: (6, 4), 3: (4, 5, 4), 4: (3, 4, 4, 2)}
RANK = {
    "Conv1D": 3,
    "LayerNormalization, axes apart": 4,
    "BatchNormalization, second axis": 3,
    "SimpleRNN": 3,
    **dict.fromkeys([name for name in LAYERS if "2D" in name], 4),
}


def layer_case(name: str) -> tuple[Any, Any, list[np.ndarray], list[Any]]:
    """Return a network with the layer in the middle, its loss in training mode, its weights and a direction."""
    rng = np.random.default_rng(3)
    keras.utils.set_random_seed(0)
    shape = INPUT_SHAPES[RANK.get(name, 2)]
    layer = LAYERS[name]()
    if name == "Embedding":
        x = rng.integers(0, 5, (6, 3))
        model = keras.Sequential([keras.Input(x.shape[1:], dtype="int32"), layer])
    else:
        x = rng.normal(0, 1, shape)
        model = keras.Sequential([keras.Input(shape[1:]), layers.Dense(shape[-1]), layer])
    variables = model.trainable_variables
    start = [rng.normal(0, 0.5, v.shape) for v in variables]
    moves = [ops.convert_to_tensor(rng.normal(0, 0.5, v.shape)) for v in variables]
    x = ops.convert_to_tensor(x)
    y = ops.convert_to_tensor(rng.normal(0, 1, model(x).shape))

    def loss() -> Any:
        return ops.mean((ops.tanh(model(x, training=True)) - y) ** 2)

    return variables, loss, start, moves
