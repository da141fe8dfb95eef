"""The one Keras shell: it turns an algorithm of `inna_core` into a Keras optimizer."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import keras
from keras import ops

from inna_core._validation import checked_choice, checked_number, is_narrow, is_real_floating
from inna_core.algorithm import Algorithm
from inna_core.compensation import compensated_increment
from inna_core.weight_decay import update_with_decay
from inna_keras._order import one_behind_the_other, traced_for_cpu


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
        published_decay: bool = False,
        kahan_sum: bool | None,
        **kwargs: Any,
    ) -> None:
        if not callable(learning_rate):
            learning_rate = checked_number("learning_rate", learning_rate)
        checked_choice("published_decay", published_decay, (True, False))
        checked_choice("kahan_sum", kahan_sum, (True, False, None))
        check_storable(hyperparameters(algorithm))
        weight_decay = checked_decay(weight_decay)  # here too: TensorFlow wraps what a setter is given
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
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
        names = self.algorithm.state_type._fields  # type: ignore[attr-defined]
        self._slots = {name: [self._slot(v, name) for v in variables] for name in names if name != "step"}
        self._compensations = [
            self._slot(v, "compensation", str(keras.backend.standardize_dtype(v.dtype)))
            if (is_narrow(v) if self.kahan_sum is None else self.kahan_sum)
            else None
            for v in variables
        ]

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
        """The step size: a variable, or what the schedule or callable says now. Numbers set are validated."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if not callable(learning_rate):
            learning_rate = checked_number("learning_rate", learning_rate)
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)  # type: ignore[attr-defined]

    @property
    def weight_decay(self) -> Any:
        """The rate of the decay, or None. Numbers set are validated; what is compiled already keeps the old one."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, weight_decay: Any) -> None:
        self._weight_decay = checked_decay(weight_decay)

    def load_own_variables(self, store: Any) -> None:
        """Take over the variables of a saved optimizer, all or none.

        Args:
            store: arrays by the variables' positions, "0" and so on.

        Raises:
            ValueError: if an array is missing or its shape is not its variable's.
        """
        if len(store) == len(self.variables):  # Keras warns of other numbers, and loads nothing
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
            grads: one gradient a variable, or None where there is none. IndexedSlices are made dense, since every row's
                velocity moves.
            trainable_variables: the variables; by default those the optimizer was built with.

        Raises:
            TypeError: if a gradient is not real floating point.
            ValueError: if a gradient's shape is not its variable's, or as Keras raises.
        """
        grads = list(grads)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        # None of either is for Keras to answer
        if grads and variables and len(grads) != len(variables):
            raise ValueError(f"Invalid grads: {len(grads)} gradients (expected {len(variables)}, one a variable)")
        if variables:
            grads = [
                None if gradient is None else checked_gradient(gradient, variable)
                for gradient, variable in zip(grads, variables, strict=False)
            ]
        super().apply(grads, variables if trainable_variables is not None else None)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        # The base class would decay here, in the variable's own precision; `update_step` does it in its own.
        pass

    def _backend_update_step(self, grads: list[Any], trainable_variables: list[Any], learning_rate: Any) -> None:
        # Where Keras on torch runs multi-tensor calls for its own optimizers, a step of its list of classes; a compiler
        # fuses the plain updates itself.
        if keras.backend.backend() == "torch":
            grads, trainable_variables = self._torch_update_step(grads, trainable_variables, learning_rate)
        if trainable_variables:
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _torch_update_step(self, grads: list[Any], variables: list[Any], learning_rate: Any) -> tuple[Any, Any]:
        """Update what multi-tensor calls can, and return the gradients and variables that are left."""
        import torch
        from keras.src.backend.common.stateless_scope import in_stateless_scope

        from inna_keras import _torch

        if _torch.is_compiling() or in_stateless_scope():
            return grads, variables
        rate = self.weight_decay or 0.0
        groups: dict[Any, list[tuple[Any, ...]]] = {}
        left: list[tuple[Any, Any]] = []
        for gradient, variable in zip(grads, variables, strict=True):
            index, theta = self._get_variable_index(variable), variable.value
            slots = [values[index].value for values in self._slots.values()]
            if self._compensations[index] is None and _torch.is_plain(theta, gradient, slots):
                decays = bool(rate) and self._use_weight_decay(variable)
                groups.setdefault((theta.dtype, theta.device, decays), []).append((theta, gradient, *slots))
            else:
                left.append((gradient, variable))
        if groups:
            now: Any = ops.convert_to_tensor(self.iterations)
            rate_now: Any = ops.convert_to_tensor(learning_rate)
            lr, steps = checked_number("learning_rate", float(rate_now)), int(now)
            for (_, _, decays), members in groups.items():
                columns: list[Any] = list(map(list, zip(*members, strict=True)))
                with torch.no_grad():
                    _torch.step(
                        self.algorithm, columns, steps, lr, rate if decays else 0.0, published=self.published_decay
                    )
        return [gradient for gradient, _ in left], [variable for _, variable in left]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state.

        Args:
            gradient: like the variable.
            variable: `keras.Variable`.
            learning_rate: scalar tensor.
        """
        index = self._get_variable_index(variable)
        slots = {name: variables[index] for name, variables in self._slots.items()}
        owed = self._compensations[index]
        dtype = "float32" if is_narrow(variable) else variable.dtype

        def wide(x: Any) -> Any:
            return ops.cast(ops.convert_to_tensor(x), dtype)

        state = {name: wide(slot) for name, slot in slots.items()}
        if "step" in self.algorithm.state_type._fields:  # type: ignore[attr-defined]
            state["step"] = wide(self.iterations)
        decays = self.weight_decay is not None and self._use_weight_decay(variable)
        theta = wide(variable)
        lr = wide(learning_rate)

        def run(gradient: Any, state: Any) -> Any:
            return update_with_decay(
                self.algorithm,
                gradient,
                state,
                theta if owed is None else theta + wide(owed),
                lr,
                self.weight_decay if decays else 0.0,
                published=self.published_decay,
                xp=ops,
            )

        # published decay and compensation read the old variable: nothing is gained behind the new one
        if owed is None and not self.published_decay and traced_for_cpu(theta):
            run = partial(one_behind_the_other, run, theta=theta)
        delta, next_state = run(wide(gradient), self.algorithm.state_type(**state))
        for name, slot in slots.items():
            self.assign(slot, getattr(next_state, name))
        if owed is not None:
            delta, compensation = compensated_increment(delta, wide(owed), theta, rounding_to(variable))
            self.assign(owed, ops.cast(compensation, owed.dtype))
        self.assign(variable, ops.cast(theta + delta, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an optimizer like this one."""
        return {**super().get_config(), **hyperparameters(self.algorithm), "kahan_sum": self.kahan_sum}


def hyperparameters(algorithm: Any) -> dict[str, Any]:
    return {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}


def hyperparameter(name: str) -> property:
    """Return a property that reads a hyperparameter of an optimizer's algorithm, and sets it if it is in its range."""

    def set_to(optimizer: Elementwise, value: Any) -> None:
        algorithm: Any = replace(optimizer.algorithm, **{name: value})  # type: ignore[type-var]
        check_storable(hyperparameters(algorithm))
        optimizer.algorithm = algorithm

    return property(lambda optimizer: getattr(optimizer.algorithm, name), set_to)


def checked_decay(weight_decay: Any) -> float | None:
    if weight_decay is not None:
        weight_decay = checked_number("weight_decay", weight_decay)
        check_storable({"weight_decay": weight_decay})
    return weight_decay


def check_storable(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, float | None):
            raise TypeError(f"Invalid {name}: {value!r} (expected a number, which a saved model can hold)")


def checked_gradient(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a dense tensor of the variable's shape, refused if it is not real floating point."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):
            # `tf.convert_to_tensor` would warn, and loses the shape where that is computed
            gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    if not hasattr(gradient, "dtype"):
        gradient = ops.convert_to_tensor(gradient)
    if not is_real_floating(gradient):
        raise TypeError(
            f"Invalid grads: dtype {gradient.dtype} for {variable.name} (expected a real floating-point dtype)"
        )
    # TensorFlow may not know a shape, or a part of it, while it traces
    expected = tuple(variable.shape)
    known = tuple(gradient.shape) if getattr(gradient.shape, "rank", 0) is not None else (None,) * len(expected)
    if len(known) != len(expected) or any(n not in (None, m) for n, m in zip(known, expected, strict=True)):
        raise ValueError(f"Invalid grads: shape {known} for {variable.name} (expected {expected})")
    return ops.reshape(gradient, expected) if None in known else gradient


def rounding_to(variable: Any) -> Callable[[Any], Any]:
    """Return a function that rounds float32 tensors to a variable's precision and leaves them float32.

    It works on the bits (to nearest, ties to even), because XLA may drop a cast there and back.
    """
    if not is_narrow(variable):
        return lambda x: x
    half = keras.backend.standardize_dtype(variable.dtype) == "float16"
    dropped = 13 if half else 16

    def rounded(x: Any) -> Any:
        bits: Any = ops.view(x, "int32")
        odd: Any = ops.bitwise_and(ops.right_shift(bits, dropped), 1)
        bits = ops.bitwise_and(bits + ((1 << (dropped - 1)) - 1) + odd, -(1 << dropped))
        y: Any = ops.view(bits, "float32")
        if half:
            size: Any = ops.abs(x)
            sign: Any = ops.sign(x)
            # Below float16's normal numbers the spacing stays 2^-24. Adding a constant with that spacing and taking it
            # away again would round too, but XLA drops that as well.
            multiple: Any = ops.round(x * 2.0**24)
            y = ops.where(ops.less(size, 2.0**-14), multiple * 2.0**-24, y)
            y = ops.where(ops.greater_equal(size, 65520.0), sign * math.inf, y)
        return ops.where(ops.isnan(x), x, y)  # the addition may carry a NaN's bits into the sign

    return rounded
