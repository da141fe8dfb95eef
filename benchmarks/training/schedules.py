"""The two regimes of step sizes, as the factor by which step k multiplies the tuned learning rate."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.training.spaces import Choice, Space
from inna_core.schedules import PowerDecay

WARMUP = 0.05


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine down to almost nothing at the last step.

    Attributes:
        steps: of the whole run.
        warmup: how many of them rise; the last of these has factor 1.
    """

    steps: int
    warmup: int

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))


@dataclass(frozen=True)
class Regime:
    """A family of schedules.

    Attributes:
        name: on the command line and in the results.
        title: in tables and figures.
        space: what the tuner may try of it, with every optimizer alike.
        schedule: the factor at each step, from the number of steps and what the tuner has drawn.
    """

    name: str
    title: str
    space: Space
    schedule: Callable[[int, Mapping[str, Any]], Callable[[int], float]]


def cosine(steps: int, _: Mapping[str, Any]) -> Callable[[int], float]:
    return WarmupCosine(steps, max(1, round(WARMUP * steps)))


def power(_: int, drawn: Mapping[str, Any]) -> Callable[[int], float]:
    return PowerDecay(1.0, drawn["q"])


ROWS = (
    Regime("cosine", f"cosine after {100 * WARMUP:g} % warm-up", {}, cosine),
    Regime("power", "γ₀ (k + 1)^(-q)", {"q": Choice((1 / 2, 1 / 4, 1 / 8, 1 / 16))}, power),
)

REGIMES = {regime.name: regime for regime in ROWS}
