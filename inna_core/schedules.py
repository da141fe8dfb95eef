"""Step-size schedules of the papers, as plain callables ``step -> lr`` that every host accepts.

The theory of INNA asks for sum gamma_k = infinity and gamma_k = o(1 / log k), which gamma_0 (k + 1)^(-q) with
0 < q <= 1 satisfies; the paper's experiments use q = 1/2, 1/4, 1/8 and 1/16.

Reference: Castera et al., JMLR 22(134), 2021, sections 4 and 5.
"""

from dataclasses import dataclass
from typing import Any

from inna_core._validation import checked_number


@dataclass(frozen=True)
class PowerDecay:
    """The decaying step size lr (step + 1)^(-q).

    Pass it as optax's ``learning_rate``, as Keras' through ``inna_keras.PowerDecay``, and in torch as
    ``LambdaLR(optimizer, PowerDecay(1.0, q))``, which multiplies it with the group's own lr.

    Args:
        lr: step size at step 0, > 0.
        q: exponent, >= 0; 0 keeps the step size constant.

    Raises:
        ValueError, TypeError: if an argument is not a number in its range.

    Reference: Castera et al., JMLR 22(134), 2021, section 5.

    Example:
        >>> schedule = PowerDecay(0.1, 1 / 2)
        >>> schedule(0), schedule(3)
        (0.1, 0.05)
    """

    lr: float
    q: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", checked_number("lr", self.lr, positive=True))
        object.__setattr__(self, "q", checked_number("q", self.q))

    def __call__(self, step: Any) -> Any:
        """Return the step size of a step, counted from 0: an int, or a 0-d array of integers (traced or not)."""
        return self.lr * (step + 1.0) ** -self.q
