"""What users do with the Keras optimizers, for a process whose backend is chosen: each returns numbers to compare."""

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


def callable_rate(name: str) -> dict[str, Any]:
    want = OPTIMIZERS[name](learning_rate=0.03)
    return {"got": steps(OPTIMIZERS[name](learning_rate=lambda: 0.03)), "want": steps(want)}


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


def averaged(name: str, overwrite_every: int | None = None) -> tuple[Any, list[Any], list[Any], list[np.ndarray]]:
    """Make steps with a moving average; return optimizer, variables, those of a loop without it, and the average."""
    optimizer, own = (
        OPTIMIZERS[name](use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=overwrite_every),
        variables(),
    )
    plain, other = OPTIMIZERS[name](), variables()
    average: list[np.ndarray] = []
    for k in range(4):
        optimizer.apply(gradients(k), own)
        plain.apply(gradients(k), other)
        new = [read(v) for v in other]
        average = new if not average else [0.5 * a + 0.5 * b for a, b in zip(average, new, strict=True)]
        if overwrite_every and (k + 1) % overwrite_every == 0:
            for variable, value in zip(other, average, strict=True):
                variable.assign(value)
    return optimizer, own, other, average


def moving_average(name: str) -> dict[str, Any]:
    optimizer, own, plain, average = averaged(name)
    during = [read(v) for v in own]
    optimizer.finalize_variable_values(own)
    return {"during": during, "plain": [read(v) for v in plain], "got": [read(v) for v in own], "want": average}


def averages_that_overwrite(name: str) -> dict[str, Any]:
    """Let the average take the variables' place every second step."""
    _, own, other, _ = averaged(name, overwrite_every=2)
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


def several_optimizers(name: str) -> dict[str, Any]:
    """Return what two of ours make of one variable each, next to what each makes alone."""
    slow, fast = OPTIMIZERS[name](learning_rate=0.01), OPTIMIZERS[name](learning_rate=0.1)
    both = keras.optimizers.MultiOptimizer(lambda variable: fast if "bias" in variable.path else slow)
    (kernel, _), (_, bias) = (steps(OPTIMIZERS[name](learning_rate=rate)) for rate in (0.01, 0.1))
    return {"got": steps(both), "want": [kernel, bias]}


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
