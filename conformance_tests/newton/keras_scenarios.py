"""Checks of `inna_keras`' summaries and training; imported only where a Keras backend has been chosen."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers

import inna_core
import inna_keras
from conformance_tests.newton.networks import SHAPES, largest_errors, problem
from inna_keras.newton_derivatives import compiled

ops: Any = keras.ops  # whose annotations know symbolic tensors alone

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")


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
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "relu": lambda: layers.Activation("relu"),
    "gelu": lambda: layers.Activation("gelu"),
    "silu": lambda: layers.Activation("silu"),
    "softplus": lambda: layers.Activation("softplus"),
    "softmax": lambda: layers.Activation("softmax"),
    "SimpleRNN": lambda: layers.SimpleRNN(4),
    "Embedding": lambda: layers.Embedding(5, 3),
}

INPUT_SHAPES = {2: (6, 4), 3: (4, 5, 4), 4: (3, 4, 4, 2)}
RANK = {"Conv1D": 3, "SimpleRNN": 3, **dict.fromkeys([name for name in LAYERS if "2D" in name], 4)}


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


def refused() -> str:
    """Return the message with which a layer without correct derivatives is refused."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.GroupNormalization(2)])
    x = ops.ones((3, 4))
    try:
        inna_keras.summary(lambda: ops.mean(model(x)), model, [ops.ones(v.shape) for v in model.trainable_variables])
    except NotImplementedError as error:
        return str(error)
    return "nothing was refused"


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


def trained(algorithm: str, steps: int, resume_at: int | None = None) -> tuple[list[np.ndarray], list[float]]:
    """Return the weights and the losses of a run over the MLP, given up and taken up again at some step."""
    weights, _, x, y = problem("mlp")
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)

    def opened() -> Any:
        model = network_of("mlp")

        def loss(y: Any, logits: Any) -> Any:
            return -ops.sum(y * ops.log_softmax(logits), axis=-1)

        return inna_keras.NewtonSummary(model, loss, getattr(inna_core, algorithm)(), period=3, average=0.5)

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


def message(call: Any) -> str:
    try:
        call()
    except (ValueError, TypeError) as error:
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
    found = trainer._derivatives(values, moves, others, x, y)
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
        slopes.append(float(ops.convert_to_numpy(other._derivatives(values, moves, now, x, y).gradient)[0]))
        other.step(x, y, x, y)

    before = other.state_dict()
    wider = inna_keras.NewtonSummary(dropping, "mse", inna_core.INNA(), window=2, average=0.0)
    states = [message(lambda: wider.load_state_dict(before)), message(lambda: wider.load_state_dict({}))]
    good: dict[str, Any] = {"x": x, "y": y, "verbose": 0}
    bad = {"y": y[:7], "x": [1.0], "batch_size": 0, "epochs": 1.5, "summary_size": 0}
    refusals = {
        name: message(lambda name=name, value=value: other.fit(**{**good, name: value})) for name, value in bad.items()
    }
    for name, value in (("algorithm", inna_core.INNA), ("period", 0)):
        options: dict[str, Any] = {name: value}
        refusals[name] = message(lambda options=options: inna_keras.NewtonSummary(model, "mse", **options))
    parameters = inspect.signature(inna_keras.NewtonSummary).parameters
    return {
        "loss": loss,
        "keras": in_keras,
        "curvature": float(ops.convert_to_numpy(found.hessian)[0, 0]),
        "own curvature": float(ops.convert_to_numpy(bare.hessian)[0, 0]) + 2 * 100.0 * 12,
        "masks differ": len(set(slopes)) == 3,
        "signature": {name: parameters[name].default for name in inna_core.StepSizes.__dataclass_fields__},
        "refusals": refusals,
        "states": states,
        "kept": wider.steps == 0 and wider.sizes is None and other.steps == 3,
    }


def promoted() -> str:
    """Return the dtype that Keras gives a result of two float64 tensors."""
    return keras.backend.result_type("float64", "float64")
