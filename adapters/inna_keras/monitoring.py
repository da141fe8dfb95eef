"""Energy, velocity and sharpness of a training run, sampled by a callback."""

import contextlib
from typing import Any

import keras
import numpy as np

from inna_core.algorithm import state_of
from inna_core.monitor import (
    EVERY,
    ITERATIONS,
    NAN,
    SHARPNESS_EVERY,
    Metrics,
    check_periods,
    largest_eigenvalue,
    measured,
    python_loop,
    velocity_squares,
)
from inna_keras._base import Elementwise
from inna_keras.newton.autodiff import Tensors, compiled
from inna_keras.newton.derivatives import hessian_product

ops: Any = keras.ops  # its annotations cover symbolic tensors only


class Monitor(keras.callbacks.Callback):
    """Samples energy, velocity and sharpness of a run every so many steps, without changing the run.

    At the end of an epoch it writes the last values of ``velocity_norm``, ``energy``, ``sharpness``,
    ``stable_sharpness`` and ``stability_ratio`` into the logs, where ``History`` finds them, and the callbacks that
    come after it (``CSVLogger``, ``TensorBoard``). Works on the TensorFlow, JAX and torch backends.

    Args:
        data: ``(x, y)`` or ``(x, y, sample_weight)``, the batch on which the loss is measured, as ``train_on_batch``
            takes them. The loss is that of training: with regularizers, dropout and batch
            statistics. Without it only the velocity and the stable sharpness are measured.
        every: steps between two samples.
        sharpness_every: steps between two samples with the sharpness, a multiple of `every`.
        iterations: products of the Hessian with a vector for one estimate of the sharpness; each costs about four
            gradients.

    Attributes:
        history: the samples (`inna_core.monitor.Metrics`), in order; `inna_core.monitor.plot` draws them.
        step: number of steps seen; set it to resume a run.

    Raises:
        TypeError: if an argument has a wrong type; when training starts, if the model's optimizer is not of this
            package.
        ValueError: if a number is out of range.

    Reference: the equations are in `inna_core.monitor`.

    Example:
        >>> import keras, numpy as np
        >>> from inna_keras import INNA
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=INNA(0.1, momentum=0.9), loss="mse")
        >>> x, y = np.random.default_rng(0).normal(size=(64, 2)), np.ones((64, 1))
        >>> monitor = Monitor(data=(x, y), every=10, sharpness_every=10)
        >>> run = model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[monitor])
        >>> [(sample.step, sample.stability_ratio < 1) for sample in monitor.history]
        [(10, True), (20, True)]
        >>> len(run.history["energy"])
        5
    """

    def __init__(
        self,
        data: tuple[Any, ...] | None = None,
        *,
        every: int = EVERY,
        sharpness_every: int = SHARPNESS_EVERY,
        iterations: int = ITERATIONS,
    ) -> None:
        super().__init__()
        if data is not None and not (isinstance(data, tuple | list) and len(data) in (2, 3)):
            given = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
            raise TypeError(f"Invalid data: {given} (expected (x, y), (x, y, sample_weight) or None)")
        check_periods(every, sharpness_every, iterations)
        self.data, self.every, self.sharpness_every, self.iterations = data, every, sharpness_every, iterations
        self.step = 0
        self.history: list[Metrics] = []
        self._batch = -1
        self._run: Run | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the optimizer, and drop functions compiled for an earlier run."""
        checked_optimizer(self.model)
        self._run = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restart the count of batches."""
        self._batch = -1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sample, if one is due; several steps may have been made in one execution."""
        before, self.step, self._batch = self.step, self.step + batch - self._batch, batch
        if self.step // self.every > before // self.every:
            self.history.append(self._sample(self.step // self.sharpness_every > before // self.sharpness_every))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the numbers of the last sample, and the last measured sharpness, into the logs."""
        if logs is not None:
            last = self.history[-1] if self.history else Metrics(0, NAN, NAN)
            sharp = next((s for s in reversed(self.history) if s.sharpness == s.sharpness), last)
            logs |= {name: getattr(last, name) for name in ("velocity_norm", "energy", "stable_sharpness")}
            logs |= {name: getattr(sharp, name) for name in ("sharpness", "stability_ratio")}

    def _sample(self, with_sharpness: bool) -> Metrics:
        model: Any = self.model  # on JAX this fetches the present state
        optimizer = checked_optimizer(model)
        # made here, since at the start of training the optimizer may have no slots
        if self._run is None or self._run.algorithm != optimizer.algorithm:
            moved = [v for v in model.trainable_variables if slots_of(optimizer, v)]
            self._run = Run(model, optimizer.algorithm, moved, self.iterations)
        run, states = self._run, [state_of_variable(optimizer, v) for v in self._run.moved]
        plain, scaled = map(as_float, run.squares(states))
        loss = sharpness = NAN
        if self.data is not None:
            values, others = ([ops.convert_to_tensor(v) for v in part] for part in (run.moved, run.others))
            data = keras.tree.map_structure(ops.convert_to_tensor, tuple(self.data))
            loss = as_float(run.loss(values, others, data))
            if with_sharpness and states:
                sharpness = as_float(run.sharpness(values, others, data, states))
        numbers = np.asarray([as_float(optimizer.learning_rate), plain, scaled, loss, sharpness])
        found = measured(optimizer.algorithm, self.step, numbers[0], (numbers[1], numbers[2]), *numbers[3:], xp=np)
        return Metrics(self.step, *map(float, found[1:]))


class Run:
    """What is measured of a model, as functions of tensors, compiled where the backend compiles.

    Args:
        model: compiled and built.
        algorithm: of its optimizer.
        moved: the variables that the optimizer updates.
        iterations: products of the Hessian for one estimate of the sharpness.
    """

    def __init__(self, model: Any, algorithm: Any, moved: list[Any], iterations: int) -> None:
        own = {id(v) for v in moved}
        self.model, self.algorithm, self.iterations = model, algorithm, iterations
        self.moved, self.others = moved, [v for v in model.variables if id(v) not in own]
        self.squares, self.loss = compiled(self._squares), compiled(self._loss)
        self.product, self.sharpness = compiled(self._product), compiled(self._sharpness)

    def _squares(self, states: list[Any]) -> Any:
        return tuple(ops.convert_to_tensor(x) for x in velocity_squares(self.algorithm, states, ops))

    def _loss(self, values: Tensors, others: Tensors, data: tuple[Any, ...]) -> Any:
        x, y, *weights = data
        # what the forward pass assigns, to running statistics and seeds, stays in the scope
        mapping = list(zip([*self.moved, *self.others], [*values, *others], strict=True))
        with unchanged_generators(values), keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            return self.model.compute_loss(x, y, self.model(x, training=True), weights[0] if weights else None)

    def _product(self, values: Tensors, others: Tensors, data: tuple[Any, ...], vector: Tensors) -> Tensors:
        return hessian_product(lambda at: self._loss(at, others, data), values, vector)

    def _sharpness(self, values: Tensors, others: Tensors, data: tuple[Any, ...], states: list[Any]) -> Any:
        dtype = "float64" if any("float64" in str(v.dtype) for v in values) else "float32"
        scaled = hasattr(self.algorithm, "denominators")
        roots = [ops.cast(ops.rsqrt(self.algorithm.denominators(s, ops)), dtype) if scaled else 1.0 for s in states]

        def product(vector: Tensors) -> Tensors:
            along = [ops.cast(x * root, v.dtype) for x, root, v in zip(vector, roots, values, strict=True)]
            images = self.product(values, others, data, along)
            return [ops.cast(x, dtype) * root for x, root in zip(images, roots, strict=True)]

        start = [keras.random.normal(v.shape, dtype=dtype, seed=i) for i, v in enumerate(values)]
        return largest_eigenvalue(
            product, start, self.iterations, ops, scan if keras.backend.backend() == "jax" else python_loop
        )


def scan(body: Any, carry: Any, count: int, _: Any) -> Any:
    import jax

    return jax.lax.scan(lambda carry, _: body(carry), carry, None, count)[1]


def unchanged_generators(values: Tensors) -> Any:
    """Return a context that restores random number generators: on torch, Keras draws from torch's own."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    from inna_torch.monitoring import unchanged_generators

    return unchanged_generators(values)


def checked_optimizer(model: Any) -> Any:
    """Return the optimizer of a model, the inner one of a LossScaleOptimizer.

    Raises:
        TypeError: if it is not of this package.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not isinstance(optimizer, Elementwise) or not hasattr(optimizer.algorithm, "coefficients"):
        raise TypeError(f"Invalid optimizer: {type(optimizer).__name__} (expected inna_keras.INNA or INNAprop)")
    return optimizer


def slots_of(optimizer: Any, variable: Any) -> dict[str, Any]:
    """Return the fields of a variable's state; {} if the optimizer does not update it."""
    index = optimizer._trainable_variables_indices.get(optimizer._var_key(variable))
    slots = {} if index is None else {name: column[index] for name, column in optimizer._slots.items()}
    return {} if any(slot is None for slot in slots.values()) else slots


def state_of_variable(optimizer: Any, variable: Any) -> Any:
    """Return the state of a variable as tensors."""
    slots = {name: ops.convert_to_tensor(slot) for name, slot in slots_of(optimizer, variable).items()}
    return state_of(optimizer.algorithm, slots, lambda: ops.cast(optimizer.iterations, slots["velocity"].dtype))


def as_float(x: Any) -> float:
    return float(ops.convert_to_numpy(x))
