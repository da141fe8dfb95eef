"""The interface between algorithms and hosts."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

Array = Any
"""An array of any framework: NumPy, CuPy, torch, JAX, array-api-strict, or a tensor passed with its own namespace."""

Scalar = Any
"""A Python float, or a 0-d array in the dtype of the parameters."""

Namespace = Any
"""An array namespace, such as the one that ``array_api_compat.array_namespace`` returns."""

State = TypeVar("State", bound=tuple)


class Algorithm(Protocol[State]):
    """An optimization algorithm: a frozen dataclass of hyperparameters with two pure methods.

    The hosts use nothing else of an algorithm. The fields of its state become torch's ``state_dict`` keys, Keras'
    variable names and the fields of the optax state.
    """

    state_type: ClassVar[type]
    default_lr: ClassVar[float]
    default_weight_decay: ClassVar[float]

    def init(self, theta: Array, xp: Namespace | None = None) -> State:
        """Return the state before the first step.

        Args:
            theta: parameter, any shape.
            xp: array namespace; inferred from theta by default.

        Returns:
            The state: arrays like theta, and a 0-d ``step`` if the algorithm counts steps.
        """
        ...

    def update(
        self, grad: Array, state: State, theta: Array, lr: Scalar, xp: Namespace | None = None
    ) -> tuple[Array, State]:
        """Return the increment of the parameter and the next state; the arguments stay unchanged.

        Args:
            grad: gradient at theta, like theta in shape and dtype.
            state: from `init` or the previous `update`.
            theta: parameter.
            lr: learning rate.
            xp: array namespace; inferred from the arrays by default.

        Returns:
            delta, such that theta + delta is the next iterate, and the next state.
        """
        ...


def slot_names(algorithm: Any) -> list[str]:
    """Return the fields of an algorithm's state that are like the parameter: all but the number of steps."""
    return [name for name in algorithm.state_type._fields if name != "step"]


def state_of(algorithm: Any, slots: Mapping[str, Array], step: Callable[[], Scalar]) -> Any:
    """Return an algorithm's state; `step()` gives the number of steps made, and is called only if the state has it."""
    counts = "step" in algorithm.state_type._fields
    return algorithm.state_type(**slots, **({"step": step()} if counts else {}))
