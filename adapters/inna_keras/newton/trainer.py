"""Summary-Newton as a training helper for Keras models.

A Keras optimizer receives only gradients, but step sizes from a summary need the loss. So `NewtonSummary` holds the
model and the loss and makes the steps itself. A ``keras.Model.train_step`` would not do: on JAX it is one compiled,
stateless function, while a refresh needs a second batch, calls `on_refresh` and solves in float64 on the host.
"""

from collections.abc import Callable
from typing import Any

import keras

from inna_core import newton
from inna_core._validation import checked_count, checked_number
from inna_core.algorithm import Algorithm
from inna_core.newton import NewtonStatus, StepSizeRecord, StepSizes, StepSizeState, Summary
from inna_keras.newton.autodiff import compiled, gradients
from inna_keras.newton.derivatives import partition_of, summary_of, trainable_variables

ops: Any = keras.ops  # its annotations cover symbolic tensors only


class NewtonSummary:
    """Trains a Keras model without a learning rate: one step size per group, from second and third derivatives.

    Each `step` moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of `inna_core`. Every
    `period` steps eta is refreshed from the summary of the loss on a batch of its own, see
    `inna_core.newton.controller`. With ``INNA()`` or ``INNAprop()`` as the algorithm this is INNA (INNAprop) without a
    learning rate.

    Args:
        model: built; its trainable variables are trained.
        loss: maps targets and predictions to the loss, as `keras.losses` do, or the name of one; its mean over the
            batch is minimised, plus regularizers and what layers add to the loss.
        algorithm: gives the direction u (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3). Callbacks of `fit` see this attribute as the learning rate.
        rule: how step sizes follow from the summaries, as in ``StepSizes(period=5)``.
        groups: partition of the variables, see `inna_core.newton.partition`.
        on_refresh: called with a `inna_core.StepSizeRecord` after each refresh, for logs and plots.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has a wrong type.
        NotImplementedError: if a layer of the model is a SpectralNormalization.

    Reference: Wolinski, arXiv 2312.03885; Castera et al., JMLR 22(134), 2021.

    Example:
        >>> import inna_core, keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> trainer = NewtonSummary(model, keras.losses.MeanSquaredError(), inna_core.INNA())
        >>> x, y = keras.random.normal((64, 2)), keras.ops.ones((64, 1))
        >>> len(trainer.fit(x, y, epochs=2, batch_size=16, verbose=0)["loss"])
        2
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Any] | str,
        algorithm: Algorithm | None = None,
        *,
        damping: float = newton.DAMPING,
        rule: StepSizes = StepSizes(),
        groups: Any = "tensor",
        on_refresh: Callable[[StepSizeRecord], Any] | None = None,
    ) -> None:
        self.damping = checked_number("damping", damping)
        self.algorithm: Any = newton.checked_algorithm(algorithm)
        self.rule = newton.checked_rule(rule)
        self.loss: Any = keras.losses.get(loss)
        self.model, self.on_refresh = model, on_refresh
        self.variables = trainable_variables(model)
        self.group_of, self.labels = partition_of(self.variables, groups)
        self.steps = 0
        self.sizes: StepSizeState | None = None
        self.states = [self.algorithm.init(ops.convert_to_tensor(v), ops) for v in self.variables]
        self._gradients, self._summary = compiled(self._gradients_of_loss), compiled(self._summary_of_loss)

    def _loss(self, values: list[Any], others: list[Any], x: Any, y: Any) -> tuple[Any, list[Any]]:
        """Return the loss with what the model adds to it, and the new values of the non-trainable variables."""
        predicted, others, added = self.model.stateless_call(values, others, x, training=True, return_losses=True)
        loss = ops.mean(self.loss(y, predicted))
        return loss + sum(ops.cast(ops.sum(extra), loss.dtype) for extra in added), others

    def _gradients_of_loss(self, values: list[Any], others: list[Any], x: Any, y: Any) -> Any:
        return gradients(lambda moved: self._loss(moved, others, x, y), values)

    def _summary_of_loss(self, values: list[Any], directions: list[Any], others: list[Any], x: Any, y: Any) -> Summary:
        def loss(moved: list[Any]) -> Any:
            return self._loss(moved, others, x, y)[0]

        return summary_of(loss, values, directions, self.group_of, self.rule.order)

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
        """Make one training step.

        Args:
            x: batch of inputs.
            y: its targets.
            x_summary: batch of inputs for the summary; needed where `due` is true.
            y_summary: its targets.

        Returns:
            The loss before the step.

        Raises:
            ValueError: if a summary is due and has no batch; nothing has then changed.
        """
        damping = checked_number("damping", self.damping)
        due = self.due()
        if due and (x_summary is None or y_summary is None):
            raise ValueError("Invalid x_summary: None (expected a batch, since a summary is due at this step)")
        others = list(self.model.non_trainable_variables)
        values, other_values = ([ops.convert_to_tensor(v) for v in part] for part in (self.variables, others))
        grads, loss, new_other_values = self._gradients(values, other_values, x, y)
        directions = [
            newton.direction(self.algorithm, g, state, p, ops)
            for g, state, p in zip(grads, self.states, values, strict=True)
        ]
        if due:
            along = self._summary(values, directions, other_values, x_summary, y_summary)
            along = Summary(*(ops.convert_to_numpy(a).astype("float64") for a in along))
            self.sizes = self.rule.update(along, self.rule.init(along) if self.sizes is None else self.sizes)
        assert self.sizes is not None
        eta = self.rule.step_sizes(self.sizes).tolist()
        columns = zip(self.variables, values, grads, directions, self.states, self.group_of, strict=True)
        new_states = []
        for v, p, g, u, state, s in columns:
            size = newton.trusted_step(damping * eta[s], u, p, self.rule.trust, ops)
            cap = self.rule.velocity_cap
            new_states.append(newton.next_state(self.algorithm, g, state, p, max(size, 0.0), cap, ops))
            v.assign(p - size * u)
            if v.constraint is not None:
                v.assign(v.constraint(v))
        self.states = new_states
        for v, value in zip(others, new_other_values, strict=True):
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
        """Train for some epochs over arrays. Each summary draws its samples separately.

        Args:
            x: inputs, samples along the first axis.
            y: targets, likewise.
            epochs: number of passes.
            batch_size: samples per step; a smaller last batch of an epoch is dropped, unless it is the only one.
            summary_size: samples per summary, drawn with replacement; at most as many as x has.
            validation_data: inputs and targets on which ``val_loss`` is measured after each epoch.
            callbacks: of `keras.callbacks`. They see the damping as the optimizer's ``learning_rate``:
                `keras.callbacks.ReduceLROnPlateau(monitor="loss")` is the paper's plateau rule.
            seed: of the order of samples.
            verbose: 1 to print a line per epoch, 0 for silence.

        Returns:
            By name, one number per epoch: ``loss``, the mean over its steps, and what the callbacks logged.

        Raises:
            TypeError: if x or y is not an array, or a number is not an int.
            ValueError: if their numbers of samples differ, or a number is less than 1.
        """
        for name, array in (("x", x), ("y", y)):
            if not getattr(array, "shape", ()):
                raise TypeError(f"Invalid {name}: {type(array).__name__} (expected an array, samples first)")
        n = int(x.shape[0])
        if n == 0 or int(y.shape[0]) != n:
            raise ValueError(f"Invalid y: {int(y.shape[0])} samples (expected as many as x has, {n}, and at least 1)")
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("summary_size", summary_size)):
            checked_count(name, value, 1)
        starts = range(0, max(n - batch_size + 1, 1), batch_size)
        generator = keras.random.SeedGenerator(seed)
        model: Any = _CallbackModel(self)
        params: dict[str, Any] = {"verbose": verbose, "epochs": epochs, "steps": len(starts)}
        callback_list = keras.callbacks.CallbackList(callbacks, add_history=True, model=model, **params)
        callback_list.on_train_begin()
        for epoch in range(epochs):
            callback_list.on_epoch_begin(epoch)
            order = ops.convert_to_numpy(keras.random.shuffle(ops.arange(n), seed=generator))
            losses = []
            for batch, start in enumerate(starts):
                callback_list.on_train_batch_begin(batch)
                rows = order[start : start + batch_size]
                summary_batch: tuple[Any, ...] = ()
                if self.due():
                    drawn = keras.random.randint((min(summary_size, n),), 0, n, seed=generator)
                    summary_batch = (ops.take(x, drawn, axis=0), ops.take(y, drawn, axis=0))
                losses.append(self.step(ops.take(x, rows, axis=0), ops.take(y, rows, axis=0), *summary_batch))
                callback_list.on_train_batch_end(batch, {"loss": losses[-1]})
            logs = {"loss": sum(losses) / len(losses)}
            if validation_data is not None:
                logs["val_loss"] = self._mean_loss(*validation_data, batch_size)
            callback_list.on_epoch_end(epoch, logs)
            if verbose:
                print(f"epoch {epoch + 1}/{epochs}:", *(f"{name} {value:.4g}" for name, value in logs.items()))
            if model.stop_training:
                break
        callback_list.on_train_end()
        return dict(model.history.history)

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

        Args:
            state: from a trainer with the same variables, groups, algorithm and rule.

        Raises:
            ValueError: if it is of other variables or groups; nothing has then changed.
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


class _CallbackModel:
    """What callbacks get as their model: its optimizer is the trainer, and it has a ``stop_training`` of its own."""

    def __init__(self, trainer: NewtonSummary) -> None:
        self._model = trainer.model
        self.optimizer = trainer
        self.stop_training = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
