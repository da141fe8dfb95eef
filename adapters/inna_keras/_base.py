"""The Keras optimizer behind `INNA` and `INNAprop`: an algorithm of `inna_core`, run on every variable."""

from dataclasses import fields, replace
from functools import partial
from typing import Any

import keras
from keras import ops

from inna_core._validation import checked_choice, checked_number, is_narrow, is_real_floating
from inna_core.algorithm import Algorithm, slot_names, state_of
from inna_core.coefficients import without_rivals
from inna_core.compensation import compensated_increment
from inna_core.evaluation_order import update_state_after_params
from inna_core.weight_decay import check_published_decay, update_with_decay
from inna_keras._tensors import checked_gradient, rounding_to, traced_for_one_cpu


class Elementwise(keras.optimizers.Optimizer):
    """An optimizer whose update of a variable needs that variable's gradient and state alone.

    A public class passes its algorithm; the optimizer's variables are the fields of the algorithm's state, in float32
    for narrower variables, and ``compensation`` where the sum is compensated.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        learning_rate: Any,
        weight_decay: Any,
        *,
        published_decay: bool,
        kahan_sum: bool | None,
        name: str | None,
        **kwargs: Any,
    ) -> None:
        if not callable(learning_rate):
            learning_rate = checked_number("learning_rate", learning_rate)
        check_decay(algorithm, published_decay)
        checked_choice("kahan_sum", kahan_sum, (True, False, None))
        check_storable(hyperparameters(algorithm))
        weight_decay = checked_decay(weight_decay)  # here too: TensorFlow wraps values on assignment
        name = unique_name(type(self).__name__.lower()) if name is None else name
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.algorithm = algorithm
        self.published_decay = published_decay
        self.kahan_sum = kahan_sum

    def build(self, variables: list[Any]) -> None:
        """Create the optimizer's variables.

        Args:
            variables: the model's trainable variables, real floating point.

        Raises:
            TypeError: if a variable is not real floating point.
        """
        if self.built:
            return
        for variable in variables:
            if not is_real_floating(variable):
                raise TypeError(
                    f"Invalid variables: {variable.name} of dtype {variable.dtype} "
                    "(expected a real floating-point dtype)"
                )
        super().build(variables)
        self._slots = {name: [self._slot(v, name) for v in variables] for name in slot_names(self.algorithm)}
        self._compensations = [
            self._slot(v, "compensation", str(keras.backend.standardize_dtype(v.dtype)))
            if self._needs_compensation(v)
            else None
            for v in variables
        ]

    def _needs_compensation(self, variable: Any) -> bool:
        return is_narrow(variable) if self.kahan_sum is None else self.kahan_sum

    def _slot(self, variable: Any, name: str, dtype: str | None = None) -> Any:
        if self._overwrite_variable_with_gradient(variable):
            return None
        if dtype is None and not is_narrow(variable):
            return self.add_variable_from_reference(variable, name)
        return self.add_variable(
            shape=variable.shape,
            dtype=dtype or "float32",
            layout=getattr(variable, "_layout", None),
            name=f"{getattr(variable, 'path', variable.name).replace('/', '_').replace(':', '_')}_{name}",
        )

    @property
    def learning_rate(self) -> Any:
        """The step size: a variable, or the current value of a schedule or callable. A number is validated when set."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if not callable(learning_rate):
            learning_rate = checked_number("learning_rate", learning_rate)
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)  # type: ignore[attr-defined]

    @property
    def weight_decay(self) -> Any:
        """The rate of the decay, or None. It is validated when set; functions compiled before keep the old rate."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, weight_decay: Any) -> None:
        self._weight_decay = checked_decay(weight_decay)

    @property
    def published_decay(self) -> bool:
        """Whether the decay acts on the velocity too."""
        return self._published_decay

    @published_decay.setter
    def published_decay(self, published_decay: bool) -> None:
        check_decay(self.algorithm, published_decay)
        self._published_decay = published_decay

    def load_own_variables(self, store: Any) -> None:
        """Load the variables of a saved optimizer, all or none.

        Args:
            store: arrays by the variables' positions, "0" and so on.

        Raises:
            ValueError: if an array is missing or its shape is not its variable's.
        """
        if len(store) == len(self.variables):  # otherwise Keras warns and loads nothing
            for i, variable in enumerate(self.variables):
                found = tuple(store[str(i)].shape) if str(i) in store else None
                if found != tuple(variable.shape):
                    raise ValueError(
                        f"Invalid store: shape {found} at {i!r} (expected {tuple(variable.shape)}, for {variable.path})"
                    )
        super().load_own_variables(store)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables; gradients that do not fit are refused before anything changes.

        Args:
            grads: one gradient per variable, None for a variable without one. Sparse gradients (IndexedSlices on
                TensorFlow, BCOO on JAX) are made dense, since each step changes the velocity of every row.
            trainable_variables: the variables; by default those the optimizer was built with.

        Raises:
            TypeError: if a gradient is not real floating point.
            ValueError: if a gradient's shape is not its variable's, or as Keras raises.
        """
        grads = list(grads)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        # without gradients Keras makes no step; without variables it raises its own error
        if grads and variables and len(grads) != len(variables):
            raise ValueError(f"Invalid grads: {len(grads)} gradients (expected {len(variables)}, one per variable)")
        if variables:
            grads = [
                None if gradient is None else checked_gradient(gradient, variable)
                for gradient, variable in zip(grads, variables, strict=False)
            ]
        super().apply(grads, variables if trainable_variables is not None else None)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        # The base class would decay here, in the variable's precision; `update_step` does it in the state's.
        pass

    def _backend_update_step(self, grads: list[Any], trainable_variables: list[Any], learning_rate: Any) -> None:
        # Keras on torch has multi-tensor steps for a fixed list of its own classes only
        if keras.backend.backend() == "torch":
            grads, trainable_variables = self._torch_update_step(grads, trainable_variables, learning_rate)
        if trainable_variables:
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _torch_update_step(self, grads: list[Any], variables: list[Any], learning_rate: Any) -> tuple[Any, Any]:
        """Update the variables that a multi-tensor step can take; return the other gradients and variables."""
        import torch
        from keras.src.backend.common.stateless_scope import in_stateless_scope

        from inna_keras import _torch

        if torch.compiler.is_compiling() or in_stateless_scope():
            return grads, variables  # a compiler fuses the plain updates itself
        batches: dict[Any, list[tuple[Any, ...]]] = {}
        others: list[tuple[Any, Any]] = []
        for gradient, variable in zip(grads, variables, strict=True):
            index, theta = self._get_variable_index(variable), variable.value
            slots = [values[index].value for values in self._slots.values()]
            if self._compensations[index] is None and _torch.is_plain(theta, gradient, slots):
                batch = theta.dtype, theta.device, self._decay_rate(variable)
                batches.setdefault(batch, []).append((theta, gradient, *slots))
            else:
                others.append((gradient, variable))
        if batches:
            iterations: Any = ops.convert_to_tensor(self.iterations)
            rate: Any = ops.convert_to_tensor(learning_rate)
            step, lr = int(iterations), checked_number("learning_rate", float(rate))
            for (_, _, weight_decay), rows in batches.items():
                columns: list[Any] = list(map(list, zip(*rows, strict=True)))
                with torch.no_grad():
                    _torch.step(self.algorithm, columns, step, lr, weight_decay, published=self.published_decay)
        return [gradient for gradient, _ in others], [variable for _, variable in others]

    def _decay_rate(self, variable: Any) -> float:
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state.

        Args:
            gradient: tensor like the variable.
            variable: `keras.Variable` that the optimizer was built with.
            learning_rate: scalar tensor.
        """
        index = self._get_variable_index(variable)
        slots = {name: variables[index] for name, variables in self._slots.items()}
        compensation = self._compensations[index]
        dtype = "float32" if is_narrow(variable) else variable.dtype

        def wide(x: Any) -> Any:
            return ops.cast(ops.convert_to_tensor(x), dtype)

        theta, own = wide(variable), {name: wide(slot) for name, slot in slots.items()}
        update = partial(
            update_with_decay,
            self.algorithm,
            theta=theta if compensation is None else theta + wide(compensation),
            lr=wide(learning_rate),
            weight_decay=self._decay_rate(variable),
            published=self.published_decay,
            xp=ops,
        )
        arguments = wide(gradient), state_of(self.algorithm, own, lambda: wide(self.iterations))
        # published decay and compensation compute the new state from the old variable, which must be kept anyway
        if compensation is None and not self.published_decay and traced_for_one_cpu(theta):
            delta, new_state = update_state_after_params(update, *arguments, theta, ops)
        else:
            delta, new_state = update(*arguments)
        for name, slot in slots.items():
            self.assign(slot, getattr(new_state, name))
        if compensation is not None:
            delta, remainder = compensated_increment(delta, wide(compensation), theta, rounding_to(variable))
            self.assign(compensation, ops.cast(remainder, compensation.dtype))
        self.assign(variable, ops.cast(theta + delta, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an optimizer like this one."""
        own = {"published_decay": self.published_decay, "kahan_sum": self.kahan_sum}
        return {**super().get_config(), **hyperparameters(self.algorithm), **own}


def unique_name(prefix: str) -> str:
    """Return "inna", "inna_1" and so on, as Keras numbers its own objects."""
    number = keras.backend.get_uid(prefix) - 1
    return f"{prefix}_{number}" if number else prefix


def hyperparameters(algorithm: Any) -> dict[str, Any]:
    return {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}


def hyperparameter(name: str) -> property:
    """Return a property that reads a hyperparameter of an optimizer's algorithm, and sets it if it is in its range.

    Setting momentum resets alpha and beta; setting alpha or beta resets momentum and lead.
    """

    def set_to(optimizer: Elementwise, value: Any) -> None:
        changed = without_rivals(optimizer.algorithm, {name: value})
        algorithm: Any = replace(optimizer.algorithm, **changed)  # type: ignore[type-var]
        check_storable(hyperparameters(algorithm))
        check_decay(algorithm, optimizer.published_decay)
        optimizer.algorithm = algorithm

    return property(lambda optimizer: getattr(optimizer.algorithm, name), set_to)


def check_decay(algorithm: Any, published_decay: Any) -> None:
    if checked_choice("published_decay", published_decay, (True, False)):
        check_published_decay(algorithm)


def checked_decay(weight_decay: Any) -> float | None:
    if weight_decay is not None:
        weight_decay = checked_number("weight_decay", weight_decay)
        check_storable({"weight_decay": weight_decay})
    return weight_decay


def check_storable(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, float | None):
            raise TypeError(f"Invalid {name}: {value!r} (expected a number, which a saved model can hold)")
