"""The one Keras shell: it turns an algorithm of `inna_core` into a Keras optimizer."""

from dataclasses import fields
from typing import Any

import keras
from keras import ops

from inna_core._checks import checked_number, is_real_floating
from inna_core.algorithm import Algorithm


class Elementwise(keras.optimizers.Optimizer):
    """An optimizer whose update of a variable needs that variable's gradient and state alone.

    A public class passes its algorithm; the optimizer's variables are the fields of the algorithm's state.
    """

    def __init__(self, algorithm: Algorithm, learning_rate: Any, weight_decay: Any, **kwargs: Any) -> None:
        if not callable(learning_rate):
            learning_rate = checked_number("learning_rate", learning_rate)
        if weight_decay is not None:
            weight_decay = checked_number("weight_decay", weight_decay)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.algorithm = algorithm

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
                    f"Invalid variables: {variable.name} of dtype {variable.dtype} (expected a real floating-point dtype)"
                )
        super().build(variables)
        names = self.algorithm.state_type._fields  # type: ignore[attr-defined]
        self._slots = {name: self.add_optimizer_variables(variables, name) for name in names if name != "step"}

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables; gradients that do not fit are refused before anything changes.

        Args:
            grads: one gradient a variable, or None where there is none.
            trainable_variables: the variables; by default those the optimizer was built with.

        Raises:
            TypeError: if a gradient is not real floating point.
            ValueError: if a gradient's shape is not its variable's, or as Keras raises.
        """
        grads = list(grads)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        for gradient, variable in zip(grads, variables, strict=False):  # Keras itself refuses lists of unequal length
            if gradient is not None:
                check_gradient(gradient, variable)
        super().apply(grads, variables if trainable_variables is not None else None)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state.

        Args:
            gradient: like the variable; IndexedSlices are made dense, since every row's velocity moves.
            variable: `keras.Variable`.
            learning_rate: scalar tensor.
        """
        index = self._get_variable_index(variable)
        slots = {name: variables[index] for name, variables in self._slots.items()}
        state = self.algorithm.state_type(**{name: ops.convert_to_tensor(slot) for name, slot in slots.items()})
        delta, state = self.algorithm.update(
            ops.cast(ops.convert_to_tensor(gradient), variable.dtype),
            state,
            ops.convert_to_tensor(variable),
            ops.cast(learning_rate, variable.dtype),
            xp=ops,
        )
        for name, slot in slots.items():
            self.assign(slot, getattr(state, name))
        self.assign_add(variable, delta)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an optimizer like this one."""
        own = {field.name: getattr(self.algorithm, field.name) for field in fields(self.algorithm)}  # type: ignore[arg-type]
        return {**super().get_config(), **own}


def check_gradient(gradient: Any, variable: Any) -> None:
    if not is_real_floating(gradient):
        raise TypeError(
            f"Invalid grads: dtype {gradient.dtype} for {variable.name} (expected a real floating-point dtype)"
        )
    # TensorFlow may not know a shape, or a part of it, while it traces
    if getattr(gradient.shape, "rank", 0) is None:
        return
    shape, expected = tuple(gradient.shape), tuple(variable.shape)
    if len(shape) != len(expected) or any(n not in (None, m) for n, m in zip(shape, expected, strict=True)):
        raise ValueError(f"Invalid grads: shape {shape} for {variable.name} (expected {expected})")
