"""INNA in Keras 3, on any of its backends: `compile` and `fit`, with a Keras learning-rate schedule.

Outside TensorFlow, the functions of `keras.ops` that promote dtypes turn float64 into float32 on purpose, whatever
`floatx` says: `matmul` and `mean` on torch, `tanh` and `mean` on JAX, and with them `Dense` and the mean that stock
losses take. Operators, `silu`, `sum` and `sparse_categorical_crossentropy` keep float64 on every backend, so the model
is made of these.
"""

from typing import Any

import keras

from benchmarks.quickstart.problem import DECAY, LR, Problem
from benchmarks.quickstart.recording import Recorder, Trained
from inna_keras import INNA, PowerDecay


class Affine(keras.layers.Layer):
    """A dense layer whose product is the operator of the tensors themselves, not `keras.ops.matmul`."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def call(self, x: Any) -> Any:
        return x @ keras.ops.convert_to_tensor(self.kernel) + self.bias


class CrossEntropy(keras.losses.Loss):
    """The mean cross-entropy of a full batch of labels and logits, taken as a sum."""

    def __init__(self, batch: int) -> None:
        super().__init__(name="cross_entropy", reduction="sum")
        self._batch = batch

    def call(self, y_true: Any, y_pred: Any) -> Any:
        losses: Any = keras.ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return losses / self._batch


class Record(keras.callbacks.Callback):
    """Tells the recorder every step and epoch."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # `self.model`, not a model kept elsewhere: reading it is what makes Keras on JAX bring the weights up to date
        self._recorder.step(lambda: self.model.get_weights())  # type: ignore[union-attr]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._recorder.epoch((logs or {})["loss"])


def train(option: str, problem: Problem, recorder: Recorder) -> Trained:
    """Train on the backend's default device.

    Args:
        option: unused, since Keras is told its backend through an environment variable.
        problem: data, initial weights and batches.
        recorder: is told every step and epoch.
    """
    del option
    keras.config.set_floatx("float64")
    inputs, hidden = problem.w1.shape
    model = keras.Sequential(
        [keras.Input((inputs,)), Affine(hidden), keras.layers.Activation("silu"), Affine(problem.b2.size)]
    )
    model.set_weights(problem.weights)
    model.compile(optimizer=INNA(PowerDecay(LR, DECAY)), loss=CrossEntropy(problem.batches.shape[2]))
    callback = Record(recorder)
    # One `fit` per epoch, since every epoch has its own order of images; the optimizer's step count goes on.
    for number, epoch in enumerate(problem.batches):
        order = epoch.reshape(-1)
        model.fit(
            problem.x[order],
            problem.y[order],
            batch_size=epoch.shape[1],
            initial_epoch=number,
            epochs=number + 1,
            shuffle=False,
            verbose=0,  # type: ignore[arg-type]  (Keras annotates its default, "auto", alone)
            callbacks=[callback],
        )
    # TensorFlow's names are a path: /job:localhost/replica:0/task:0/device:CPU:0
    device = str(model.weights[0].value.device).rpartition("device:")[2].lower()
    return Trained(device, model.predict(problem.x_test, verbose=0))  # type: ignore[arg-type]
