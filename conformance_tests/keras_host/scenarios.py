"""What users do with the Keras optimizers, for a process whose backend is chosen: each returns numbers to compare."""

import contextlib
import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

import inna_core
import inna_keras
from conformance_tests.matrix.table import ALGORITHMS

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    algorithm.name: partial(
        getattr(inna_keras, algorithm.name),
        learning_rate=algorithm.trial.lrs[0],
        weight_decay=None,
        **algorithm.trial.hyper,
    )
    for algorithm in ALGORITHMS
}

X = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
Y = X @ np.asarray([[1.0], [-2.0], [0.5]], np.float32) + 0.3


def read(x: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(ops.cast(x, "float32")))


def variables(dtype: str = "float32", **options: Any) -> list[Any]:
    rng = np.random.default_rng(1)
    return [
        keras.Variable(rng.standard_normal(shape), dtype=dtype, name=name, **options)
        for name, shape in (("kernel", (4, 3)), ("bias", (3,)))
    ]


def gradients(k: int, dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(100 + k)
    return [ops.convert_to_tensor(rng.standard_normal(shape), dtype=dtype) for shape in ((4, 3), (3,))]


def steps(optimizer: Any, n: int = 4, own: list[Any] | None = None, repeat: int = 1) -> list[np.ndarray]:
    own = variables() if own is None else own
    for k in range(n):
        for _ in range(repeat):
            optimizer.apply(gradients(k), own)
    return [read(v) for v in own]


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
    before = model.evaluate(X, Y, verbose=0)
    fit(model)
    return {
        "got": model.get_weights(),
        "want": by_hand(name),
        "before": before,
        "after": model.evaluate(X, Y, verbose=0),
    }


def stateless(name: str) -> dict[str, Any]:
    optimizer, own = OPTIMIZERS[name](), variables()
    optimizer.build(own)
    params, state = [v.value for v in own], [v.value for v in optimizer.variables]
    for k in range(4):
        params, state = optimizer.stateless_apply(state, gradients(k), params)
    untouched = [read(v) for v in own]
    return {
        "got": [read(p) for p in params],
        "want": steps(OPTIMIZERS[name]()),
        "untouched": untouched,
        "start": [read(v) for v in variables()],
    }


def config_round_trip(name: str) -> dict[str, Any]:
    schedule = inna_keras.PowerDecay(0.1, 0.25)
    optimizer = OPTIMIZERS[name](learning_rate=schedule, weight_decay=0.1, clipnorm=1.0, kahan_sum=True)
    serialized: Any = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(serialized)
    return {
        "same": again.get_config() == optimizer.get_config(),
        "from_config": type(optimizer).from_config(optimizer.get_config()).get_config() == optimizer.get_config(),
        "registered": serialized["registered_name"],
        "got": steps(again),
        "want": steps(optimizer),
        "by_string": type(keras.optimizers.get(f"inna>{name}")).__name__,
    }


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


def accumulation(name: str) -> dict[str, Any]:
    """Make two calls a step, whose gradients differ and have the usual ones for their mean."""
    optimizer, own = OPTIMIZERS[name](gradient_accumulation_steps=2), variables()
    for k in range(4):
        for sign in (1.0, -1.0):
            optimizer.apply([g + sign * h for g, h in zip(gradients(k), gradients(k + 50), strict=True)], own)
    return {"got": [read(v) for v in own], "want": steps(OPTIMIZERS[name]())}


def plain_gradients(name: str) -> dict[str, Any]:
    """Give gradients that are no tensors."""
    optimizer, own = OPTIMIZERS[name](), variables()
    for k in range(4):
        kernel, bias = map(read, gradients(k))
        optimizer.apply([kernel.tolist(), bias], own)
    return {"got": [read(v) for v in own], "want": steps(OPTIMIZERS[name]())}


def set_dampings(name: str) -> dict[str, Any]:
    optimizer = OPTIMIZERS[name]()
    optimizer.alpha, optimizer.beta, optimizer.weight_decay = 1, 0.3, 0.25
    messages = []
    for attribute, bad in (("alpha", -1.0), ("beta", 0.0), ("weight_decay", -0.5), ("weight_decay", "0.5")):
        try:
            setattr(optimizer, attribute, bad)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    want = OPTIMIZERS[name](alpha=1.0, beta=0.3, weight_decay=0.25)
    same = {**optimizer.get_config(), "name": ""} == {**want.get_config(), "name": ""}
    return {"messages": messages, "same": same, "got": steps(optimizer), "want": steps(want)}


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


def load_what_does_not_fit(name: str) -> dict[str, Any]:
    """Load variables of which the last has another shape."""
    optimizer, own = OPTIMIZERS[name](), variables()
    steps(optimizer, own=own)
    before = [read(v) for v in optimizer.variables]
    store: dict[str, np.ndarray] = {str(i): x + 1 for i, x in enumerate(before)}
    store[str(len(before) - 1)] = np.zeros((9, 9), "float32")
    try:
        optimizer.load_own_variables(store)
        message = ""
    except ValueError as error:
        message = str(error)
    return {"message": message, "got": [read(v) for v in optimizer.variables], "want": before}


def callable_rate(name: str) -> dict[str, Any]:
    want = OPTIMIZERS[name](learning_rate=0.03)
    return {"got": steps(OPTIMIZERS[name](learning_rate=lambda: 0.03)), "want": steps(want)}


def set_rate(name: str) -> dict[str, Any]:
    optimizer, own = OPTIMIZERS[name](learning_rate=0.5), variables()
    optimizer.learning_rate = 0.03
    messages = []
    for bad in (-0.1, float("nan"), "0.1"):
        try:
            optimizer.learning_rate = bad
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    return {
        "messages": messages,
        "got": steps(optimizer, own=own),
        "want": steps(OPTIMIZERS[name](learning_rate=0.03)),
    }


def clipped(argument: str, limit: float, grads: list[np.ndarray]) -> list[np.ndarray]:
    if argument == "clipvalue":
        return [np.clip(g, -limit, limit) for g in grads]
    norms = [float(np.linalg.norm(g)) for g in grads]
    if argument == "global_clipnorm":
        norms = [float(np.linalg.norm(norms))] * len(grads)
    return [g * min(1.0, limit / norm) for g, norm in zip(grads, norms, strict=True)]


def clipping(name: str, argument: str, limit: float) -> dict[str, Any]:
    """Next to steps with gradients that NumPy clips."""
    optimizer, own = OPTIMIZERS[name](), variables()
    for k in range(4):
        by_numpy = clipped(argument, limit, [read(g) for g in gradients(k)])
        optimizer.apply([ops.convert_to_tensor(g, dtype="float32") for g in by_numpy], own)
    return {
        "got": steps(OPTIMIZERS[name](**{argument: limit})),
        "want": [read(v) for v in own],
        "plain": steps(OPTIMIZERS[name]()),
    }


def moving_average(name: str) -> dict[str, Any]:
    optimizer, own = OPTIMIZERS[name](use_ema=True, ema_momentum=0.5), variables()
    plain, other = OPTIMIZERS[name](), variables()
    average: list[np.ndarray] = []
    for k in range(4):
        optimizer.apply(gradients(k), own)
        plain.apply(gradients(k), other)
        new = [read(v) for v in other]
        average = new if not average else [0.5 * a + 0.5 * b for a, b in zip(average, new, strict=True)]
    during = [read(v) for v in own]
    optimizer.finalize_variable_values(own)
    return {
        "during": during,
        "plain": [read(v) for v in other],
        "got": [read(v) for v in own],
        "want": average,
    }


def averages_that_overwrite(name: str) -> dict[str, Any]:
    """Let the average take the variables' place every second step."""
    optimizer, own = OPTIMIZERS[name](use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2), variables()
    plain, other = OPTIMIZERS[name](), variables()
    average: list[np.ndarray] = []
    for k in range(4):
        optimizer.apply(gradients(k), own)
        plain.apply(gradients(k), other)
        new = [read(v) for v in other]
        average = new if not average else [0.5 * a + 0.5 * b for a, b in zip(average, new, strict=True)]
        if k % 2 == 1:
            for variable, value in zip(other, average, strict=True):
                variable.assign(value)
    return {"got": [read(v) for v in own], "want": [read(v) for v in other]}


def apply_anywhere(optimizer: Any, grads: list[Any], own: list[Any]) -> None:
    """Apply; on JAX by `stateless_apply`, since LossScaleOptimizer's own `apply` leaks tracers there."""
    if keras.backend.backend() != "jax":
        optimizer.apply(grads, own)
        return
    if not optimizer.built:
        optimizer.build(own)
    state = optimizer.variables
    new = optimizer.stateless_apply([v.value for v in state], grads, [v.value for v in own])
    for variable, value in zip([*own, *state], [*new[0], *new[1]], strict=True):
        variable.assign(value)


def loss_scaling(name: str) -> dict[str, Any]:
    fixed, own = OPTIMIZERS[name](loss_scale_factor=8.0), variables()
    for k in range(4):
        fixed.apply([8.0 * g for g in gradients(k)], own)
    dynamic = keras.optimizers.LossScaleOptimizer(OPTIMIZERS[name](), initial_scale=4.0)
    scaled = variables()
    for k in range(4):
        scale = float(read(dynamic.scale_loss(ops.ones(()))))
        apply_anywhere(dynamic, [scale * g * np.nan for g in gradients(k)], scaled)  # skipped, and the scale halved
        scale = float(read(dynamic.scale_loss(ops.ones(()))))
        apply_anywhere(dynamic, [scale * g for g in gradients(k)], scaled)
    return {
        "fixed": [read(v) for v in own],
        "dynamic": [read(v) for v in scaled],
        "want": steps(OPTIMIZERS[name]()),
        "iterations": int(read(dynamic.iterations)),
    }


def constraint(name: str) -> dict[str, Any]:
    """Forbid negative weights, next to a loop that clips them itself."""
    own, other = variables(), variables()
    for variable in own:
        variable.constraint = keras.constraints.NonNeg()
    optimizer, plain = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for k in range(4):
        optimizer.apply(gradients(k), own)
        plain.apply(gradients(k), other)
        for variable in other:
            variable.assign(np.maximum(read(variable), 0.0))
    return {"got": [read(v) for v in own], "want": [read(v) for v in other], "plain": steps(OPTIMIZERS[name]())}


def excluded_from_decay(name: str) -> dict[str, Any]:
    optimizer = OPTIMIZERS[name](weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return {
        "got": steps(optimizer),
        "decayed": steps(OPTIMIZERS[name](weight_decay=0.5)),
        "plain": steps(OPTIMIZERS[name]()),
    }


def overwritten(name: str) -> dict[str, Any]:
    own = [*variables(), keras.Variable(np.ones(2, "float32"), name="scale")]
    own[-1].overwrite_with_gradient = True
    optimizer = OPTIMIZERS[name]()
    for k in range(4):
        optimizer.apply([*gradients(k), ops.convert_to_tensor(np.full(2, k + 5.0, "float32"))], own)
    return {"got": [read(v) for v in own[:2]], "want": steps(OPTIMIZERS[name]()), "scale": read(own[2])}


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


def gradients_of_unknown_shape(name: str) -> dict[str, Any]:
    """Make steps in a function traced for any matrix and any array at all; TensorFlow only."""
    import tensorflow as tf

    optimizer, own = OPTIMIZERS[name](), variables()
    optimizer.build(own)
    anything: Any = None
    step = tf.function(
        lambda *grads: optimizer.apply(list(grads), own),
        input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec(anything)],
    )
    for k in range(4):
        step(*gradients(k))
    return {"got": [read(v) for v in own], "want": steps(OPTIMIZERS[name]())}


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


def several_optimizers(name: str) -> dict[str, Any]:
    """Return what two of ours make of one variable each, next to what each makes alone."""
    slow, fast = OPTIMIZERS[name](learning_rate=0.01), OPTIMIZERS[name](learning_rate=0.1)
    both = keras.optimizers.MultiOptimizer(lambda variable: fast if "bias" in variable.path else slow)
    (kernel, _), (_, bias) = (steps(OPTIMIZERS[name](learning_rate=rate)) for rate in (0.01, 0.1))
    return {"got": steps(both), "want": [kernel, bias]}


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


def velocity_that_forgets() -> dict[str, Any]:
    """Make steps with alpha * lr near 1 and a beta that nothing cancels with, next to float64 steps of the core."""
    lr, core = float(np.float32(0.1)), inna_core.INNA(alpha=10.0, beta=0.3)
    thetas = [read(v).astype("float64") for v in variables()]
    states = [core.init(theta) for theta in thetas]
    for k in range(4):
        for i, g in enumerate(gradients(k)):
            delta, states[i] = core.update(read(g).astype("float64"), states[i], thetas[i], lr)
            thetas[i] = thetas[i] + delta
    return {"got": steps(inna_keras.INNA(learning_rate=0.1, alpha=10.0, beta=0.3)), "want": thetas}


def negated_gradients(name: str) -> dict[str, Any]:
    """Of torch: as autograd makes them for one number that is conjugated as an imaginary part."""
    import torch

    moved = []
    for view in (torch._neg_view, torch.neg):
        variable, optimizer = keras.Variable([1.0]), getattr(inna_keras, name)(learning_rate=0.1)
        for _ in range(2):
            optimizer.apply([view(torch.full((1,), -2.0))], [variable])
        moved.append(read(variable))
    return {"got": moved[:1], "want": moved[1:]}


def rounding(dtype: str) -> tuple[Any, Any]:
    """Return what `rounding_to` and a cast make of numbers that are hard to round, without XLA."""
    from inna_keras._tensors import rounding_to

    every = np.arange(2**16, dtype="uint16")
    near = (
        every.view("float16").astype("float32")
        if dtype == "float16"
        else (every.astype("uint32") << 16).view("float32")
    )
    with np.errstate(all="ignore"):
        beside = [np.nextafter(near, np.float32(x)) for x in (-np.inf, np.inf)]
        halfway = (near[:-1] / 2 + near[1:] / 2).astype("float32")
    nans = np.asarray([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000], "uint32").view("float32")
    x = np.concatenate(
        [near, *beside, halfway, nans, np.asarray([65519.996, 65520, 7e4, -7e4, 1e-8, np.inf, -np.inf], "float32")]
    )
    variable = keras.Variable(np.zeros(1), dtype=dtype)
    tensor = ops.convert_to_tensor(x, dtype="float32")
    wanted = ops.cast(ops.cast(tensor, dtype), "float32")
    return ops.convert_to_numpy(rounding_to(variable)(tensor)), ops.convert_to_numpy(wanted)


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


def nesterov_steps(nesterov: bool) -> list[list[np.ndarray]]:
    """20 steps of `INNA` and of Keras' SGD in float64; 0.125 and 0.875 are numbers that every precision holds."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    ours = inna_keras.INNA(0.125, momentum=0.875, lead=None if nesterov else 1.0)
    ends = []
    for optimizer in ours, keras.optimizers.SGD(0.125, momentum=0.875, nesterov=nesterov):
        own = variables("float64")
        for k in range(20):
            optimizer.apply(gradients(k, "float64"), own)
        ends.append([np.array(ops.convert_to_numpy(v)) for v in own])
    return ends


def momentum_beside_published_decay(name: str, first: dict[str, Any], then: dict[str, Any]) -> tuple[str, Any, Any]:
    """What is raised where one is set after the other, and what the optimizer has then."""
    optimizer = getattr(inna_keras, name)(0.1, **first)
    (attribute, value), message = *then.items(), ""
    try:
        setattr(optimizer, attribute, value)
    except ValueError as error:
        message = str(error)
    return message, optimizer.momentum, optimizer.published_decay


def momentum_in_config(name: str) -> list[Any]:
    """Alpha, beta, momentum and lead: of a copy by configuration, after alpha is set, and after momentum is."""

    def dampings(optimizer: Any) -> tuple[Any, ...]:
        return optimizer.alpha, optimizer.beta, optimizer.momentum, optimizer.lead

    optimizer = getattr(inna_keras, name)(0.1, momentum=0.9, lead=3.0)
    optimizer.momentum = 0.8
    copied = type(optimizer).from_config(optimizer.get_config())
    found = [dampings(copied)]
    copied.alpha = 0.5
    found.append(dampings(copied))
    copied.momentum = 0.7
    return [*found, dampings(copied)]
