"""Checks of `inna_keras`' summaries and training; imported only where a Keras backend has been chosen."""

import inspect
import threading
from typing import Any

import keras
import numpy as np
from keras import layers

import inna_core
import inna_keras
from conformance_tests.newton.keras_layers import layer_case
from conformance_tests.newton.networks import SHAPES, largest_errors, problem
from inna_keras.newton.autodiff import compiled

ops: Any = keras.ops  # whose annotations know symbolic tensors alone


def network_of(kind: str) -> Any:
    if kind == "mlp":
        stack = [layers.Dense(8, "tanh"), layers.Dense(5, "tanh"), layers.Dense(4)]
    else:
        stack = [layers.Conv2D(3, 3, activation="tanh"), layers.Flatten(), layers.Dense(4)]
    x = problem(kind)[2]
    return keras.Sequential([keras.Input(x.shape[1:]), *stack])


def network_summary(kind: str, order: int = 3) -> list[np.ndarray]:
    weights, direction, x, y = problem(kind)
    model = network_of(kind)
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        assert tuple(variable.shape) == value.shape
        variable.assign(value)
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    moves = [ops.convert_to_tensor(u) for u in direction]

    def loss() -> Any:
        return -ops.mean(ops.sum(y * ops.log_softmax(model(x)), axis=-1))

    found = inna_keras.summary(loss, model, moves, order=order)
    assert len(SHAPES[kind]) == found.gradient.shape[0]
    return [ops.convert_to_numpy(a) for a in found]


def layer_summary(name: str) -> list[np.ndarray]:
    """Return the summary of a network with the layer in the middle, in training mode."""
    variables, loss, start, moves = layer_case(name)
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)
    return [ops.convert_to_numpy(a) for a in inna_keras.summary(loss, variables, moves)]


def layer_errors(name: str) -> tuple[float, float, float]:
    """Return the errors of g, H and T of a network with the layer in the middle, in training mode."""
    variables, loss, start, moves = layer_case(name)

    @compiled
    def loss_and_summary(values: list[Any]) -> list[Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return [loss(), *inna_keras.summary(loss, variables, moves)]

    def evaluate(group: int, by: float) -> tuple[float, Any]:
        moved = [
            ops.convert_to_tensor(value + by * ops.convert_to_numpy(u) * (s == group))
            for s, (value, u) in enumerate(zip(start, moves, strict=True))
        ]
        value, *found = (ops.convert_to_numpy(a) for a in loss_and_summary(moved))
        return float(value), found

    return largest_errors(evaluate, len(variables))


def refusals_of_spectral_normalisation() -> list[str]:
    """Return the messages with which a model with a spectral normalisation is refused."""
    model = keras.Sequential([keras.Input((4,)), layers.SpectralNormalization(layers.Dense(4), name="spectral")])
    x, directions = ops.ones((3, 4)), [ops.ones(v.shape) for v in model.trainable_variables]
    return [
        message(lambda: inna_keras.summary(lambda: ops.mean(model(x)), model, directions), NotImplementedError),
        message(lambda: inna_keras.NewtonSummary(model, "mse"), NotImplementedError),
    ]


def refusal_of_moments_in_a_function() -> str:
    """Return the message with which ``tf.nn.moments`` is refused where its derivatives cannot be mended."""
    import tensorflow as tf

    w = keras.Variable(np.ones(3))
    variance: Any = tf.function(lambda x: tf.nn.moments(x, [0])[1])
    return message(lambda: inna_keras.summary(lambda: variance(w * w), [w], [ops.ones(3)]), NotImplementedError)


def layers_in_other_threads() -> dict[str, bool]:
    """Return whether models trained in another thread during a summary move their averages: its model and another."""
    models = {
        name: keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()])
        for name in ("own model", "other model")
    }
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(2, 3, (16, 4)))

    def train() -> None:
        for model in models.values():
            model(x, training=True)

    def loss() -> Any:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        return ops.mean(models["own model"](x, training=True) ** 2)

    averages = {name: model.non_trainable_variables[0] for name, model in models.items()}
    before = {name: ops.convert_to_numpy(average).copy() for name, average in averages.items()}
    own = models["own model"]
    inna_keras.summary(loss, own, [ops.ones(v.shape) for v in own.trainable_variables])
    return {name: not np.array_equal(before[name], ops.convert_to_numpy(v)) for name, v in averages.items()}


def moving_averages_stay() -> bool:
    """Return whether a summary leaves the moving averages of a batch normalisation alone, and a step moves them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)])
    trainer = inna_keras.NewtonSummary(model, keras.losses.MeanSquaredError(), inna_core.INNA())
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 3, (16, 4)), rng.normal(0, 1, (16, 1))
    before = [ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    inna_keras.summary(
        lambda: ops.mean(model(ops.convert_to_tensor(x), training=True) ** 2),
        model,
        [ops.ones(v.shape) for v in model.trainable_variables],
    )
    same = all(
        np.array_equal(a, ops.convert_to_numpy(v)) for a, v in zip(before, model.non_trainable_variables, strict=True)
    )
    trainer.step(ops.convert_to_tensor(x), ops.convert_to_tensor(y), ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    moved = not np.array_equal(before[0], ops.convert_to_numpy(model.non_trainable_variables[0]))
    return same and moved


RULE = inna_core.StepSizes(period=3, average=0.5, trust=0.1)


def trained(algorithm: str, steps: int, resume_at: int | None = None) -> tuple[list[np.ndarray], list[float]]:
    """Return the weights and the losses of a run over the MLP, given up and taken up again at some step."""
    weights, _, x, y = problem("mlp")
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)

    def opened() -> Any:
        model = network_of("mlp")

        def loss(y: Any, logits: Any) -> Any:
            return -ops.sum(y * ops.log_softmax(logits), axis=-1)

        return inna_keras.NewtonSummary(model, loss, getattr(inna_core, algorithm)(), rule=RULE)

    trainer = opened()
    for variable, value in zip(trainer.variables, weights, strict=True):
        variable.assign(value)
    losses = []
    for k in range(steps):
        if k == resume_at:
            values, state = [ops.convert_to_numpy(v).copy() for v in trainer.variables], trainer.state_dict()
            trainer = opened()
            for variable, value in zip(trainer.variables, values, strict=True):
                variable.assign(value)
            trainer.load_state_dict(state)
        losses.append(trainer.step(x, y, x, y))
    return [ops.convert_to_numpy(v) for v in trainer.variables], losses


def with_callbacks() -> dict[str, Any]:
    """Return what Keras' own callbacks did to a training run whose loss cannot fall."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    trainer = inna_keras.NewtonSummary(model, keras.losses.MeanSquaredError(), inna_core.INNA(), damping=0.4)
    x, y = ops.ones((16, 4)), ops.ones((16, 1))
    refused = ""
    try:
        trainer.learning_rate = -1.0
    except ValueError as error:
        refused = str(error)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=10**9, min_lr=0.15)
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, min_delta=10**9, restore_best_weights=True)
    epochs: list[tuple[float, dict[str, float]]] = []
    log = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: epochs.append((trainer.damping, dict(logs))))
    history = trainer.fit(
        x, y, epochs=9, batch_size=8, validation_data=(x, y), callbacks=[plateau, stopping, log], verbose=0
    )
    first = trainer.fit(
        x, y, batch_size=8, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.25 * lr)], verbose=0
    )
    return {
        "refused": refused,
        "dampings": [damping for damping, _ in epochs],
        "history": history,
        "logged": [logs["loss"] for _, logs in epochs],
        "scheduled": trainer.damping,
        "names": sorted(first),
    }


def message(call: Any, errors: Any = (ValueError, TypeError)) -> str:
    try:
        call()
    except errors as error:
        return str(error)
    return "nothing was refused"


def as_keras_does() -> dict[str, Any]:
    """Return what `NewtonSummary` makes of a model's own losses, of dropout, of names, and of bad arguments."""
    rng = np.random.default_rng(0)
    x, y = ops.convert_to_tensor(rng.normal(0, 1, (16, 4))), ops.convert_to_tensor(rng.normal(0, 1, (16, 3)))

    # lambda |W|^2 with a large lambda: the loss, its gradient 2 lambda W and its curvature are known
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer=keras.regularizers.L2(100.0))])
    weights = model.trainable_variables
    trainer = inna_keras.NewtonSummary(model, "mse", inna_core.INNA())
    others = [ops.convert_to_tensor(v) for v in model.non_trainable_variables]
    values = [ops.convert_to_tensor(v) for v in weights]
    moves = [ops.ones_like(v) for v in values]
    found = trainer._summary(values, moves, others, x, y)
    bare = inna_keras.summary(lambda: ops.mean((model(x) - y) ** 2), model, moves)
    model.compile(loss="mse")
    evaluate: Any = model.evaluate
    in_keras = float(evaluate(x, y, verbose=0))
    loss = trainer.step(x, y, x, y)

    # dropout draws another mask after each step
    dropping = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(3)])
    other = inna_keras.NewtonSummary(dropping, keras.losses.MeanSquaredError(), inna_core.INNA(), damping=0.0)
    values = [ops.convert_to_tensor(v) for v in other.variables]
    moves = [ops.ones_like(v) for v in values]
    slopes = []
    for _ in range(3):
        now = [ops.convert_to_tensor(v) for v in dropping.non_trainable_variables]
        slopes.append(float(ops.convert_to_numpy(other._summary(values, moves, now, x, y).gradient)[0]))
        other.step(x, y, x, y)

    before = other.state_dict()
    rule = inna_core.StepSizes(window=2, average=0.0)
    wider = inna_keras.NewtonSummary(dropping, "mse", inna_core.INNA(), rule=rule)
    states = [message(lambda: wider.load_state_dict(before)), message(lambda: wider.load_state_dict({}))]
    good: dict[str, Any] = {"x": x, "y": y, "verbose": 0}
    bad = {"y": y[:7], "x": [1.0], "batch_size": 0, "epochs": 1.5, "summary_size": 0}
    refusals = {
        name: message(lambda name=name, value=value: other.fit(**{**good, name: value})) for name, value in bad.items()
    }
    for name, value in (("algorithm", inna_core.INNA), ("rule", {"period": 3}), ("damping", -1.0)):
        options: dict[str, Any] = {name: value}
        refusals[name] = message(lambda options=options: inna_keras.NewtonSummary(model, "mse", **options))
    return {
        "loss": loss,
        "keras": in_keras,
        "curvature": float(ops.convert_to_numpy(found.hessian)[0, 0]),
        "own curvature": float(ops.convert_to_numpy(bare.hessian)[0, 0]) + 2 * 100.0 * 12,
        "masks differ": len(set(slopes)) == 3,
        "rule": inspect.signature(inna_keras.NewtonSummary).parameters["rule"].default == inna_core.StepSizes(),
        "refusals": refusals,
        "states": states,
        "kept": wider.steps == 0 and wider.sizes is None and other.steps == 3,
    }


def one_step(constraint: str | None) -> np.ndarray:
    """Return the weights after one step from 0 to targets of either sign."""
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, use_bias=False, kernel_initializer="zeros", kernel_constraint=constraint)]
    )
    x, y = ops.convert_to_tensor(np.ones((4, 2), "float32")), ops.convert_to_tensor([[1.0, -1.0, -2.0]] * 4)
    inna_keras.NewtonSummary(model, "mse").step(x, y, x, y)
    return ops.convert_to_numpy(model.trainable_variables[0])


def promoted() -> str:
    """Return the dtype that Keras gives a result of two float64 tensors."""
    return keras.backend.result_type("float64", "float64")
