"""The state of an optimizer as NumPy arrays by the names of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inna_core._validation import checked_count

FRAMEWORKS = ("torch", "optax", "keras", "arrays")
"""Frameworks whose names and layouts a state may have."""

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class PortableState:
    """An optimizer's state, and optionally the parameters.

    Args:
        framework: one of `FRAMEWORKS`, whose names and layouts the arrays have.
        algorithm: name of its class in `inna_core`.
        step: number of steps made; None if unknown: INNA in torch does not count.
        slots: by name of the parameter, its arrays by name: velocity, second_moment, compensation.
        parameters: by name; empty, or all of those in `slots`.
        hyperparameters: by name of the parameter, numbers, booleans and None by name; loading compares them and never
            applies them.
        steps: by name of the parameter, its number of steps where that differs from `step`.

    Raises:
        ValueError: if names, shapes or numbers do not fit together.
        TypeError: if an argument or a dtype is of a wrong type.

    Example:
        >>> import numpy as np
        >>> theta = np.asarray([1.0, 2.0])
        >>> state = PortableState("arrays", "INNA", 1, {"theta": {"velocity": np.zeros(2)}}, {"theta": theta})
        >>> state.parameters["theta"]
        array([1., 2.])
    """

    framework: str
    algorithm: str
    step: int | None
    slots: Mapping[str, Mapping[str, np.ndarray]]
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)
    hyperparameters: Mapping[str, Mapping[str, float | bool | None]] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.framework not in FRAMEWORKS:
            raise ValueError(f"Invalid framework: {self.framework!r} (expected one of {', '.join(FRAMEWORKS)})")
        if not isinstance(self.algorithm, str) or not self.algorithm:
            raise TypeError(f"Invalid algorithm: {self.algorithm!r} (expected the name of a class in inna_core)")
        if self.step is not None:
            checked_count("step", self.step, 0)
        for name, slots in self.slots.items():
            check_slots(name, slots)
        if self.parameters and set(self.parameters) != set(self.slots):
            odd = sorted(set(self.parameters) ^ set(self.slots))
            raise ValueError(f"Invalid parameters: {odd} in one of slots and parameters (expected in both)")
        for name, array in self.parameters.items():
            check_array(f"parameters[{name!r}]", array)
            if array.shape != self.shape(name):
                raise ValueError(
                    f"Invalid parameters[{name!r}]: shape {array.shape} (expected {self.shape(name)}, as its slots)"
                )
        for name, count in self.steps.items():
            check_known("steps", name, self.slots)
            checked_count(f"steps[{name!r}]", count, 0)
        for name, numbers in self.hyperparameters.items():
            check_known("hyperparameters", name, self.slots)
            for key, value in numbers.items():
                if not isinstance(key, str) or not isinstance(value, float | int | bool | None):
                    raise TypeError(f"Invalid hyperparameters[{name!r}]: {key!r}: {value!r} (expected a number)")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""
        return next(iter(self.slots[name].values())).shape

    def step_of(self, name: str) -> int | None:
        """Return the number of steps that a parameter made, or None."""
        return self.steps.get(name, self.step)

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return slots and parameters, by the name of the parameter and of the slot; "parameter" is the parameter."""
        return {
            name: {**slots, **({"parameter": self.parameters[name]} if self.parameters else {})}
            for name, slots in self.slots.items()
        }


def counts(steps: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Return the largest number of steps, and by name those that differ from it."""
    largest = max(steps.values(), default=0)
    return largest, {name: k for name, k in steps.items() if k != largest}


def check_slots(name: Any, slots: Mapping[str, Any]) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"Invalid slots: {name!r} as a name (expected a string that is not empty)")
    if not slots:
        raise ValueError(f"Invalid slots[{name!r}]: none (expected one at least)")
    shapes = set()
    for slot, array in slots.items():
        if not isinstance(slot, str) or not slot or "/" in slot or slot == "parameter":
            raise ValueError(f"Invalid slots[{name!r}]: {slot!r} (expected a name other than 'parameter', without '/')")
        check_array(f"slots[{name!r}][{slot!r}]", array)
        shapes.add(array.shape)
    if len(shapes) > 1:
        raise ValueError(f"Invalid slots[{name!r}]: shapes {sorted(shapes)} (expected the same for all slots)")


def check_array(name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"Invalid {name}: {type(array).__name__} (expected a NumPy array)")
    if array.dtype.name not in DTYPES:
        raise TypeError(f"Invalid {name}: dtype {array.dtype} (expected one of {', '.join(DTYPES)})")


def check_known(what: str, name: Any, slots: Mapping[str, Any]) -> None:
    if name not in slots:
        raise ValueError(f"Invalid {what}: {name!r} (expected names of parameters that have slots)")
