"""What a host's training loop tells about itself while it runs."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quickstart.problem import flat

EVERY = 10


class UnavailableError(Exception):
    """The host is installed, but this machine lacks what the row is about, such as a GPU."""


class Trained(NamedTuple):
    """What a training loop returns: the device it ran on, and one row of class scores per test image."""

    device: str
    scores: np.ndarray


class Recorder:
    """Collects the trajectory of one host; the clock runs from the recorder's making to the last epoch's end.

    Args:
        steps: number of steps of the whole run.
        progress: called with the number of steps made.
    """

    def __init__(self, steps: int, progress: Callable[[int], None]) -> None:
        self._steps = steps
        self._progress = progress
        self._start = perf_counter()
        self._made = 0
        self.seconds = 0.0
        self.steps: list[int] = []
        self.weights: list[np.ndarray] = []
        self.losses: list[float] = []

    def step(self, weights: Callable[[], Sequence[Any]]) -> None:
        """Count a step. The weights are asked for at few of them, since reading them may wait for the device."""
        self._made += 1
        if self._made % EVERY == 0 or self._made == self._steps:
            self.steps.append(self._made)
            self.weights.append(flat(weights()))
            self._progress(self._made)

    def epoch(self, loss: Any) -> None:
        """Note the mean of the losses that the epoch's batches had before their steps."""
        self.losses.append(float(loss))
        self.seconds = perf_counter() - self._start
