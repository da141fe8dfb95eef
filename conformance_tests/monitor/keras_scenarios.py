"""Checks of `inna_keras.Monitor`; imported only where a Keras backend has been chosen."""

import csv
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import inna_keras
from conformance_tests.monitor.reference import EVERY, N_STEPS, START, Setting, X, Y


def samples(setting: Setting) -> list[dict[str, float]]:
    """Return the samples of a run on the linear regression of `reference`, in float64."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # it does not follow floatx once a layer has been made
    try:
        model: Any = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
        model.set_weights([START])
        optimizer = getattr(inna_keras, setting.algorithm)(setting.lr, weight_decay=None, **setting.hyper)
        model.compile(optimizer=optimizer, loss="mse")
        monitor = inna_keras.Monitor((X, Y), every=EVERY, sharpness_every=EVERY)
        model.fit(X, Y, batch_size=len(X), epochs=N_STEPS, shuffle=False, verbose=0, callbacks=[monitor])
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)
    return [sample._asdict() for sample in monitor.history]


DATA = np.random.default_rng(0).normal(size=(64, 6)).astype("float32"), np.random.default_rng(1).integers(0, 3, 64)


def network() -> Any:
    """Return a model with running statistics, dropout, a regularizer and a loss that a layer adds."""
    keras.utils.set_random_seed(0)
    stack = [
        layers.Dense(8, activation="tanh", kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        layers.ActivityRegularization(l2=1e-3),
        layers.Dense(3),
    ]
    return keras.Sequential([keras.Input((6,)), *stack])


def fit(name: str, *callbacks: Any, steps_per_execution: int = 1) -> tuple[list[np.ndarray], Any]:
    """Return the weights and the optimizer's variables after training, and the history."""
    model: Any = network()
    x, y = DATA
    model.compile(
        optimizer=getattr(inna_keras, name)(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=list(callbacks))
    variables = [np.asarray(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    return [*map(np.asarray, model.get_weights()), *variables], history.history


def disturbance(name: str) -> tuple[bool, list[tuple[int, bool]]]:
    """Return whether a monitor leaves a run as it is, and when it sampled, with a sharpness or without."""
    monitor = inna_keras.Monitor(DATA, every=2, sharpness_every=4)
    found, history = fit(name, monitor)
    wanted, plain = fit(name)
    same = all(np.array_equal(x, y) for x, y in zip(found, wanted, strict=True))
    same = same and all(history[key] == values for key, values in plain.items())
    assert all(np.isfinite(sample.energy) for sample in monitor.history)
    return same, [(sample.step, bool(np.isfinite(sample.sharpness))) for sample in monitor.history]


def logged(steps_per_execution: int) -> tuple[dict[str, list[float]], list[str], list[int]]:
    """Return the history, the columns of a CSVLogger, and the steps of the samples with several steps in one call."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        monitor = inna_keras.Monitor(DATA, every=4, sharpness_every=4)
        history = fit("INNA", monitor, keras.callbacks.CSVLogger(str(path)))[1]
        with path.open(encoding="utf-8") as file:
            columns = next(csv.reader(file))
    several = inna_keras.Monitor(every=3, sharpness_every=3)
    fit("INNA", several, steps_per_execution=steps_per_execution)
    return history, columns, [sample.step for sample in several.history]


def refusals() -> list[str]:
    """Return the messages with which wrong arguments are refused."""
    model = network()
    model.compile(optimizer=keras.optimizers.SGD(), loss="mse")
    x: Any = np.ones((4, 6), "float32")
    calls = [
        lambda: inna_keras.Monitor(every=0),
        lambda: inna_keras.Monitor(x),
        lambda: inna_keras.Monitor((x,)),
        lambda: model.fit(x, np.ones((4, 3)), verbose=0, callbacks=[inna_keras.Monitor()]),
    ]
    return [message(call) for call in calls]


def message(call: Any) -> str:
    try:
        call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
