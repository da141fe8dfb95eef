"""What users do with Keras models and these optimizers: fit, save, copy, distribute; as `scenarios.py`."""

import contextlib
import copy
import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import inna_keras
from conformance_tests.keras_host.scenarios import OPTIMIZERS, read

X = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
Y = X @ np.asarray([[1.0], [-2.0], [0.5]], np.float32) + 0.3


def linear_model(optimizer: Any, **options: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(optimizer=optimizer, loss="mse", **options)
    return model


def fit(model: Any, epochs: int = 3) -> None:
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)


def by_hand(name: str, epochs: int = 3, rate: Callable[[int], float] | None = None) -> list[np.ndarray]:
    """Return the weights of the linear model after a loop over NumPy gradients."""
    kernel, bias = keras.Variable(np.zeros((3, 1), "float32")), keras.Variable(np.zeros(1, "float32"))
    optimizer = OPTIMIZERS[name]()
    for epoch in range(epochs):
        if rate is not None:
            optimizer.learning_rate = rate(epoch)
        for i in range(0, 64, 16):
            x, y = X[i : i + 16], Y[i : i + 16]
            error = 2 * (x @ read(kernel) + read(bias) - y) / 16
            grads = [ops.convert_to_tensor(x.T @ error), ops.convert_to_tensor(error.sum(0))]
            optimizer.apply_gradients(zip(grads, [kernel, bias], strict=True))
    return [read(kernel), read(bias)]


def fit_equals_a_loop(name: str, options: dict[str, Any]) -> dict[str, Any]:
    model = linear_model(OPTIMIZERS[name](), **options)
    first_loss = model.evaluate(X, Y, verbose=0)
    fit(model)
    losses = (first_loss, model.evaluate(X, Y, verbose=0))
    return {"got": model.get_weights(), "want": by_hand(name), "losses": losses}


def save_model(name: str, path: str) -> list[np.ndarray]:
    """Train, save the whole model, train on; return the final weights.

    Without XLA, which Keras on torch would take for an order to compile the model that it loads.
    """
    model = linear_model(OPTIMIZERS[name](learning_rate=inna_keras.PowerDecay(0.05, 0.25)), jit_compile=False)
    fit(model, 2)
    model.save(path)
    fit(model, 2)
    return model.get_weights()


def load_model(path: str) -> list[np.ndarray]:
    """Load what `save_model` saved, and train on."""
    model: Any = keras.models.load_model(path)
    fit(model, 2)
    return model.get_weights()


def weights_round_trip(name: str, path: str) -> dict[str, Any]:
    model = linear_model(OPTIMIZERS[name]())
    fit(model, 2)
    model.save_weights(path)
    other = linear_model(OPTIMIZERS[name]())
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    return {"got": [read(v) for v in other.optimizer.variables], "want": [read(v) for v in model.optimizer.variables]}


def scheduled_by_callback(name: str) -> dict[str, Any]:
    model = linear_model(OPTIMIZERS[name]())
    rate = lambda epoch: 0.08 / (epoch + 1)  # noqa: E731
    callback = keras.callbacks.LearningRateScheduler(rate)
    model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[callback])
    return {"got": model.get_weights(), "want": by_hand(name, rate=rate)}


def copies_go_on(name: str) -> dict[str, Any]:
    """Train a model and two copies of it on."""
    model = linear_model(OPTIMIZERS[name](learning_rate=inna_keras.PowerDecay(0.05, 0.25)))
    fit(model, 2)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for one in (model, *copies):
        fit(one, 2)
    return {"got": [w for one in copies for w in one.get_weights()], "want": 2 * model.get_weights()}


def embedding(name: str) -> dict[str, Any]:
    """Make steps with the gradients of an embedding, which uses 2 of 5 rows, one of them twice."""
    table = keras.Variable(np.random.default_rng(2).standard_normal((5, 2)), dtype="float32", name="table")
    start, rows, values = read(table), [0, 3, 0], np.asarray([[1, 2], [3, 4], [5, 6]], "float32")
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, rows, values)
    gradient: Any = dense
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gradient = tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant([5, 2]))
    elif keras.backend.backend() == "jax":
        from jax.experimental.sparse import BCOO

        data: Any = (values, np.asarray(rows)[:, None])
        gradient = BCOO(data, shape=(5, 2), indices_sorted=False, unique_indices=False)
    else:
        gradient = ops.convert_to_tensor(dense)
    other = keras.Variable(start, name="other")
    sparse_optimizer, dense_optimizer = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for _ in range(3):
        sparse_optimizer.apply([gradient], [table])
        dense_optimizer.apply([ops.convert_to_tensor(dense)], [other])
    tokens = np.asarray([[0, 3], [3, 0]] * 4)
    model: Any = keras.Sequential(
        [keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 2), keras.layers.Flatten()]
    )
    model.compile(optimizer=OPTIMIZERS[name](), loss="mse")
    loss = model.evaluate(tokens, np.ones((8, 4)), verbose=0)
    model.fit(tokens, np.ones((8, 4)), epochs=5, verbose=0)
    return {
        "got": [read(table)],
        "want": [read(other)],
        "start": [start],
        "loss": (loss, model.evaluate(tokens, np.ones((8, 4)), verbose=0)),
    }


def embedding_model(name: str, options: dict[str, Any], dtype_policy: str) -> dict[str, Any]:
    """Fit a table as an embedding and as a matrix behind one-hot vectors, whose gradients are never sparse."""
    tokens, start = np.asarray([[0, 3], [3, 0]] * 4), np.random.default_rng(2).standard_normal((5, 2))
    tables = []
    keras.config.set_dtype_policy(dtype_policy)
    try:
        for x, layer in (
            (tokens, keras.layers.Embedding(5, 2)),
            (np.eye(5, dtype="float32")[tokens], keras.layers.Dense(2, use_bias=False)),
        ):
            inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
            model: Any = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
            layer.set_weights([start])
            model.compile(optimizer=OPTIMIZERS[name](**options), loss="mse")
            model.fit(x, np.ones((8, 4)), batch_size=8, epochs=5, verbose=0)
            tables += layer.get_weights()
    finally:
        keras.config.set_dtype_policy("float32")
    return {"got": [tables[0]], "want": [tables[1]], "start": [start.astype("float32")]}


def policy(name: str, dtype_policy: str) -> dict[str, Any]:
    """Train under a dtype policy; a float16 policy makes Keras wrap the optimizer in a LossScaleOptimizer."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy)
    try:
        model = linear_model(OPTIMIZERS[name]())
        start = float(model.evaluate(X, Y, verbose=0))
        fit(model, 10)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        return {
            "loss": (start, float(model.evaluate(X, Y, verbose=0))),
            "variables": {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables},
            "velocities": {keras.backend.standardize_dtype(v.dtype) for v in inner._slots["velocity"]},
            "optimizer": type(model.optimizer).__name__,
        }
    finally:
        keras.config.set_dtype_policy(before)


def numbered_names(name: str) -> dict[str, Any]:
    """Return the names of three optimizers, and the paths that a model trained by two of them shows."""
    keras.utils.clear_session(free_memory=False)
    ours = [OPTIMIZERS[name](), OPTIMIZERS[name](), OPTIMIZERS[name](name="mine")]
    optimizer_map = keras.optimizers.OptimizerMap(ours[0])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    optimizer_map[model.layers[1].kernel.path] = ours[1]
    model.compile(optimizer=keras.optimizers.MultiOptimizer(optimizer_map), loss="mse")
    fit(model, 1)
    paths = [v.path for v in model.optimizer.variables]
    return {"names": [one.name for one in ours], "paths": paths, "tree": sorted(model.get_state_tree())}


def data_parallel(name: str) -> dict[str, Any]:
    """Fit on 8 forced devices and on one; JAX only."""
    weights = []
    for distribution in (None, keras.distribution.DataParallel(devices=keras.distribution.list_devices())):
        with distribution.scope() if distribution else contextlib.nullcontext():
            model = linear_model(OPTIMIZERS[name]())
            fit(model)
            weights.append(model.get_weights())
            spread = {len(v.value.sharding.device_set) for v in model.optimizer._slots["velocity"]}
    return {"got": weights[1], "want": weights[0], "spread": spread}


def mirrored(name: str) -> dict[str, Any]:
    """Fit on two replicas and on one; TensorFlow only, in a process that computed nothing before its first call."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    if not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
    weights = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            model = linear_model(OPTIMIZERS[name](weight_decay=0.1))
        fit(model)
        weights.append(model.get_weights())
    return {"got": weights[1], "want": weights[0], "replicas": strategy.num_replicas_in_sync}


def narrow_model_round_trip(name: str, path: str) -> dict[str, Any]:
    """Train a bfloat16 model, save it, load it, and train both on."""
    dense = keras.layers.Dense(1, kernel_initializer="zeros", dtype="bfloat16")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile(optimizer=OPTIMIZERS[name](), loss="mse")
    fit(model, 2)
    model.save(path)
    again: Any = keras.models.load_model(path)

    def state(one: Any) -> list[Any]:
        slots = [v for values in one.optimizer._slots.values() for v in values]
        return [*slots, *one.optimizer._compensations]

    found = {
        "dtypes": [str(keras.backend.standardize_dtype(v.dtype)) for v in state(again)],
        "want_dtypes": [str(keras.backend.standardize_dtype(v.dtype)) for v in state(model)],
        "got": [read(v) for v in state(again)],
        "want": [read(v) for v in state(model)],
    }
    fit(model, 2)
    fit(again, 2)
    return {**found, "went_on": [read(v) for v in again.variables], "want_went_on": [read(v) for v in model.variables]}
