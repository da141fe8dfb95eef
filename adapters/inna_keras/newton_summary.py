"""Summary-Newton for Keras 3: the derivatives of a loss along a direction split into groups, and a training helper.

A Keras optimizer sees gradients alone, but step sizes from a summary need the loss; so `NewtonSummary` holds the model
and the loss, makes the steps itself, and has a `fit` of its own. The equations are in `inna_core.newton_summary`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import keras

from inna_core._validation import checked_count, checked_number, is_real_floating
from inna_core.algorithm import Algorithm
from inna_core.newton_loop import (
    DAMPING,
    StepSizeRecord,
    StepSizes,
    StepSizeSettings,
    StepSizeState,
    checked_algorithm,
    direction,
    next_state,
    with_settings,
)
from inna_core.newton_summary import NewtonStatus, Summary, check_order, partition
from inna_keras.newton_derivatives import compiled, derivatives, differentiable_layers, gradients

ops: Any = keras.ops  # whose annotations know symbolic tensors alone


def summary(
    loss_fn: Callable[[], Any], variables: Any, direction: Sequence[Any], groups: Any = "tensor", *, order: int = 3
) -> Summary:
    """Return the exact derivatives of a loss along a direction, group by group: g, H and T.

    The loss sees the variables theta_s + mu_s u_s, u being the direction, and is differentiated at mu = 0; variables,
    moving averages and seeds stay as they are. LayerNormalization and BatchNormalization are computed by elementary
    operations, since the native kernels' higher derivatives are wrong on some backend; other normalisation layers are
    refused.

    Works eagerly and inside ``tf.function`` or ``jax.jit``, on the TensorFlow, JAX and torch backends.

    Args:
        loss_fn: closure that calls the model and returns the loss, a scalar.
        variables: the model, whose trainable variables are meant, or a sequence of variables.
        direction: the tensors u, one a variable. A step in this direction is theta - eta u, so a gradient is a
            direction.
        groups: partition of the variables, see `inna_core.newton_summary.partition`.
        order: 3, or 2 to leave the third derivatives out (T = 0).

    Returns:
        `Summary` of the gradient (S,), Hessian (S, S) and third derivatives (S,), backend tensors.

    Raises:
        ValueError: if shapes or numbers of tensors differ, or order is not 2 or 3.
        TypeError: if a variable is not real floating point.
        NotImplementedError: if the loss calls a layer without correct derivatives, or the backend has no autodiff.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x = keras.ops.ones((4, 2))
        >>> u = [keras.ops.ones(v.shape) for v in model.trainable_variables]
        >>> along = summary(lambda: keras.ops.mean((model(x) - 1.0) ** 2), model, u)
        >>> tuple(along.hessian.shape)
        (2, 2)
    """
    variables = trainable(variables)
    group_of, labels = partition_of(variables, groups)
    moves = list(direction)
    check_order(order)
    if len(moves) != len(variables):
        raise ValueError(f"Invalid direction: {len(moves)} tensors (expected {len(variables)}, one a variable)")
    for u, v in zip(moves, variables, strict=True):
        if tuple(u.shape) != tuple(v.shape):
            raise ValueError(f"Invalid direction: shape {tuple(u.shape)} for {v.name} (expected {tuple(v.shape)})")

    def loss(moved: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, moved, strict=True))):
            return loss_fn()

    return _summary(loss, [ops.convert_to_tensor(v) for v in variables], moves, group_of, len(labels), order)


def trainable(variables: Any) -> list[Any]:
    return list(variables.trainable_variables if isinstance(variables, keras.layers.Layer) else variables)


def partition_of(variables: Sequence[Any], groups: Any) -> tuple[list[int], list[str]]:
    """Return the group of each variable, and the groups' labels."""
    for v in variables:
        if not is_real_floating(v):
            raise TypeError(f"Invalid variables: {v.name} of dtype {v.dtype} (expected a real floating-point dtype)")
    if not variables:
        raise ValueError("Invalid variables: none (expected at least one)")
    return partition([v.path for v in variables], [len(v.shape) for v in variables], groups)


def _summary(
    loss: Callable[[list[Any]], Any],
    values: Sequence[Any],
    moves: Sequence[Any],
    group_of: Sequence[int],
    size: int,
    order: int,
) -> Summary:
    """Return the summary of a loss of the variables' values."""
    dtype = "float64" if any("float64" in str(p.dtype) for p in values) else "float32"

    def phi(mu: list[Any]) -> Any:
        moved = [p + ops.cast(mu[s], p.dtype) * u for p, u, s in zip(values, moves, group_of, strict=True)]
        return ops.cast(loss(moved), dtype)

    with differentiable_layers():
        return derivatives(phi, size, dtype, order)


class NewtonSummary:
    """Trains a Keras model without a learning rate: one step size per group, from second and third derivatives.

    Each `step` moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of `inna_core`; every
    `period` steps eta is refreshed from the summary of the loss on a batch of its own, see `inna_core.newton_loop`.
    With ``INNA()`` or ``INNAprop()`` as the algorithm this is INNA (INNAprop) without a learning rate.

    Args:
        model: built; its trainable variables are trained.
        loss: maps targets and predictions to the loss, as `keras.losses` do, or the name of one; the mean over a batch
            counts. Regularizers and what layers add to the loss count as well.
        algorithm: makes the direction (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3). An attribute, and what callbacks of `fit` see as the learning rate.
        groups: partition of the variables, see `inna_core.newton_summary.partition`.
        on_refresh: called with a `inna_core.StepSizeRecord` after each refresh, for logs and plots.
        **settings: keywords of `inna_core.StepSizes`: ``damping_int``, ``period``, ``order``, ``average`` and others.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has a wrong type.

    Reference: Wolinski, arXiv 2312.03885; Castera et al., JMLR 22(134), 2021.

    Example:
        >>> import inna_core, keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> trainer = NewtonSummary(model, keras.losses.MeanSquaredError(), inna_core.INNA())
        >>> x, y = keras.random.normal((64, 2)), keras.ops.ones((64, 1))
        >>> len(trainer.fit(x, y, epochs=2, batch_size=16, verbose=0)["loss"])
        2
    """

    @with_settings
    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Any] | str,
        algorithm: Algorithm | None = None,
        *,
        damping: float = DAMPING,
        groups: Any = "tensor",
        on_refresh: Callable[[StepSizeRecord], Any] | None = None,
        **settings: Unpack[StepSizeSettings],
    ) -> None:
        self.damping = checked_number("damping", damping)
        self.algorithm: Any = checked_algorithm(algorithm)
        self.rule = StepSizes(**settings)
        self.loss: Any = keras.losses.get(loss)
        self.model, self.on_refresh = model, on_refresh
        self.variables = trainable(model)
        self.group_of, self.labels = partition_of(self.variables, groups)
        self.steps = 0
        self.sizes: StepSizeState | None = None
        self.states = [self.algorithm.init(ops.convert_to_tensor(v), ops) for v in self.variables]
        self._gradients, self._derivatives = compiled(self._loss_gradients), compiled(self._loss_derivatives)

    def _loss(self, values: list[Any], others: list[Any], x: Any, y: Any) -> tuple[Any, list[Any]]:
        """Return the loss and what the model adds to it, and the new values of the variables that are not trained."""
        predicted, others, added = self.model.stateless_call(values, others, x, training=True, return_losses=True)
        loss = ops.mean(self.loss(y, predicted))
        return loss + sum(ops.cast(ops.sum(extra), loss.dtype) for extra in added), others

    def _loss_gradients(self, values: list[Any], others: list[Any], x: Any, y: Any) -> Any:
        return gradients(lambda moved: self._loss(moved, others, x, y), values)

    def _loss_derivatives(self, values: list[Any], moves: list[Any], others: list[Any], x: Any, y: Any) -> Summary:
        size, order = len(self.labels), self.rule.order
        return _summary(lambda moved: self._loss(moved, others, x, y)[0], values, moves, self.group_of, size, order)

    def _others(self) -> list[Any]:
        return list(self.model.non_trainable_variables)

    def step_sizes(self) -> dict[str, float]:
        """Return the step sizes lambda_1 eta_s in use, by label of the group; 0 before the first step."""
        if self.sizes is None:
            return dict.fromkeys(self.labels, 0.0)
        eta = self.rule.step_sizes(self.sizes).tolist()
        return {label: self.damping * e for label, e in zip(self.labels, eta, strict=True)}

    def due(self) -> bool:
        """Return whether the next step refreshes the step sizes."""
        return self.rule.due(self.steps, 0 if self.sizes is None else int(self.sizes.refreshes))

    def step(self, x: Any, y: Any, x_summary: Any = None, y_summary: Any = None) -> float:
        """Make one training step; returns the loss before it.

        Args:
            x: batch of inputs.
            y: its targets.
            x_summary: batch of inputs for the summary; needed where `due` is true.
            y_summary: its targets.

        Raises:
            ValueError: if a summary is due and has no batch. Nothing has changed then.
        """
        damping = checked_number("damping", self.damping)
        due = self.due()
        if due and (x_summary is None or y_summary is None):
            raise ValueError("Invalid x_summary: None (expected a batch, since a summary is due at this step)")
        values = [ops.convert_to_tensor(v) for v in self.variables]
        others = [ops.convert_to_tensor(v) for v in self._others()]
        grads, loss, updated = self._gradients(values, others, x, y)
        moves = [
            direction(self.algorithm, g, state, p, ops) for g, state, p in zip(grads, self.states, values, strict=True)
        ]
        if due:
            found = self._derivatives(values, moves, others, x_summary, y_summary)
            found = Summary(*(ops.convert_to_numpy(a).astype("float64") for a in found))
            self.sizes = self.rule.update(found, self.rule.init(found) if self.sizes is None else self.sizes)
        assert self.sizes is not None
        eta = self.rule.step_sizes(self.sizes).tolist()
        new = []
        for v, p, g, u, state, s in zip(self.variables, values, grads, moves, self.states, self.group_of, strict=True):
            size = damping * eta[s]
            new.append(next_state(self.algorithm, g, state, p, max(size, 0.0), self.rule.velocity_cap, ops))
            v.assign(p - size * u)
        self.states = new
        for v, value in zip(self._others(), updated, strict=True):
            v.assign(value)
        self.steps += 1
        if due and self.on_refresh is not None:
            status = NewtonStatus(int(self.sizes.status))
            self.on_refresh(StepSizeRecord(self.steps - 1, self.step_sizes(), float(self.sizes.radius), status))
        return float(ops.convert_to_numpy(loss))

    @property
    def learning_rate(self) -> float:
        """The damping, under the name by which Keras' callbacks read and set it."""
        return self.damping

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.damping = checked_number("learning_rate", float(value))

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        summary_size: int = 256,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Any = None,
        seed: int = 0,
        verbose: int = 1,
    ) -> dict[str, list[float]]:
        """Train for some epochs over arrays; summaries take samples of their own draw.

        Args:
            x: inputs, samples along the first axis.
            y: targets, likewise.
            epochs: number of passes.
            batch_size: samples a step; the last, smaller batch of an epoch is left out where there are others.
            summary_size: samples a summary.
            validation_data: inputs and targets on which ``val_loss`` is measured after each epoch.
            callbacks: of `keras.callbacks`. They see the model, and the damping as its optimizer's ``learning_rate``:
                `keras.callbacks.ReduceLROnPlateau(monitor="loss")` is the paper's plateau rule.
            seed: of the order of samples.
            verbose: 1 to print a line an epoch, 0 for silence.

        Returns:
            By name, one number an epoch: ``loss``, the mean over its steps, and whatever else the callbacks logged.

        Raises:
            TypeError: if x or y is not an array, or a number is not an int.
            ValueError: if they have not the same number of samples, or a number is less than 1.
        """
        for name, array in (("x", x), ("y", y)):
            if not getattr(array, "shape", ()):
                raise TypeError(f"Invalid {name}: {type(array).__name__} (expected an array, samples first)")
        n = int(x.shape[0])
        if n == 0 or int(y.shape[0]) != n:
            raise ValueError(f"Invalid y: {int(y.shape[0])} samples (expected as many as x has, {n}, and some)")
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("summary_size", summary_size)):
            checked_count(name, value, 1)
        starts = range(0, max(n - batch_size + 1, 1), batch_size)
        generator = keras.random.SeedGenerator(seed)
        seen: Any = _SeenByCallbacks(self)
        parameters: dict[str, Any] = {"verbose": verbose, "epochs": epochs, "steps": len(starts)}
        told = keras.callbacks.CallbackList(callbacks, add_history=True, model=seen, **parameters)
        told.on_train_begin()
        for epoch in range(epochs):
            told.on_epoch_begin(epoch)
            order = ops.convert_to_numpy(keras.random.shuffle(ops.arange(n), seed=generator))
            losses = []
            for batch, start in enumerate(starts):
                told.on_train_batch_begin(batch)
                rows = order[start : start + batch_size]
                extra: tuple[Any, ...] = ()
                if self.due():
                    drawn = keras.random.randint((min(summary_size, n),), 0, n, seed=generator)
                    extra = (ops.take(x, drawn, axis=0), ops.take(y, drawn, axis=0))
                losses.append(self.step(ops.take(x, rows, axis=0), ops.take(y, rows, axis=0), *extra))
                told.on_train_batch_end(batch, {"loss": losses[-1]})
            logs = {"loss": sum(losses) / len(losses)}
            if validation_data is not None:
                logs["val_loss"] = self._mean_loss(*validation_data, batch_size)
            told.on_epoch_end(epoch, logs)
            if verbose:
                print(f"epoch {epoch + 1}/{epochs}:", *(f"{name} {value:.4g}" for name, value in logs.items()))
            if seen.stop_training:
                break
        told.on_train_end()
        return dict(seen.history.history)

    def _mean_loss(self, x: Any, y: Any, batch_size: int) -> float:
        total, n = 0.0, int(x.shape[0])
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            loss = ops.mean(self.loss(y[rows], self.model(x[rows], training=False)))
            total += float(ops.convert_to_numpy(loss)) * (rows.stop - start)
        return total / n

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs beside the model, as NumPy arrays and numbers."""
        slots = [{name: ops.convert_to_numpy(x).copy() for name, x in state._asdict().items()} for state in self.states]
        sizes = {} if self.sizes is None else {name: x.copy() for name, x in self.sizes._asdict().items()}
        return {"steps": self.steps, "damping": self.damping, "sizes": sizes, "algorithm": slots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned: the run continues bit for bit.

        Raises:
            ValueError: if it is of other variables or groups. Nothing has changed then.
        """
        if set(state) != {"steps", "damping", "sizes", "algorithm"}:
            raise ValueError(f"Invalid state: {sorted(state)} (expected what state_dict returned)")
        shapes = [{name: tuple(x.shape) for name, x in own._asdict().items()} for own in self.states]
        saved = [{name: tuple(x.shape) for name, x in slots.items()} for slots in state["algorithm"]]
        if shapes != saved:
            raise ValueError(f"Invalid state: shapes {saved} (expected {shapes})")
        checked_count("steps", state["steps"], 0)
        checked_number("damping", state["damping"])
        if state["sizes"]:
            self.rule.check_state(state["sizes"], len(self.labels))
        self.states = [
            self.algorithm.state_type(**{name: ops.convert_to_tensor(x) for name, x in slots.items()})
            for slots in state["algorithm"]
        ]
        self.steps, self.damping = state["steps"], state["damping"]
        self.sizes = StepSizeState(**{name: x.copy() for name, x in state["sizes"].items()}) if state["sizes"] else None


class _SeenByCallbacks:
    """A model as callbacks know it: its optimizer has a learning rate, and it is told here when to stop."""

    def __init__(self, trainer: NewtonSummary) -> None:
        self._trained = trainer.model
        self.optimizer = trainer
        self.stop_training = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trained, name)
