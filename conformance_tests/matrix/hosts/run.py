"""What the tests see of a host: a run, fed and read in float64 NumPy arrays."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Snapshot:
    """Parameters and state of a run, as float64 arrays (every narrower float is exact in them).

    Attributes:
        params: one array a parameter.
        state: by field name, one array a parameter.
    """

    params: list[np.ndarray]
    state: dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Fact:
    """What a host array is, apart from its values."""

    dtype: str
    shape: tuple[int, ...]
    device: str
    namespace: str


class Run(Protocol):
    """One optimizer on one host."""

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        """Make a step; return the gradients as they are afterwards, to show whether they were changed.

        A dtype other than the run's own is fed as it is, to see it refused.
        """
        ...

    def read(self) -> Snapshot:
        """Return the present parameters and state."""
        ...

    def previous(self) -> Snapshot:
        """Return what the arrays that went into the last step hold now; pure hosts only."""
        ...

    def write(self, snapshot: Snapshot, k: int) -> None:
        """Put the run before its step k with these parameters and this state."""
        ...

    def save(self, path: str) -> None:
        """Save as users of the host would."""
        ...

    def load(self, path: str) -> None:
        """Load what `save` wrote."""
        ...

    def facts(self) -> dict[str, list[Fact]]:
        """Return what the parameters ("params") and each field of the state are."""
        ...


def as_float64(x: Any) -> np.ndarray:
    """Return a copy, complex128 if complex: what a host shows may be a view of memory that the next step overwrites."""
    return np.array(x, dtype=np.complex128 if np.iscomplexobj(x) else np.float64)
