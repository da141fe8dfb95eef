"""The regimes of step sizes: the factor by which step k multiplies the learning rate."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.training.spaces import Choice, Space
from inna_core.schedules import PowerDecay

WARMUP = 0.05

Factor = Callable[[int], float]
Schedule = Callable[[int, Mapping[str, Any]], Factor]
"""The factor at each step, from the number of steps of a run and the setting."""


def warmup_cosine(steps: int, warmup: int) -> Factor:
    """Return a linear warm-up, whose last step has factor 1, and then half a cosine down to almost nothing."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return factor


NANOGPT_WARMUP, NANOGPT_FLOOR = 100, 0.1


def nanogpt(steps: int) -> Factor:
    """Return nanoGPT's schedule: a linear warm-up of 100 steps, then half a cosine down to a tenth."""

    def factor(step: int) -> float:
        if step < NANOGPT_WARMUP:
            return (step + 1) / (NANOGPT_WARMUP + 1)
        cosine = math.cos(math.pi * (step - NANOGPT_WARMUP) / (steps - NANOGPT_WARMUP))
        return NANOGPT_FLOOR + (1 - NANOGPT_FLOOR) * 0.5 * (1 + cosine)

    return factor


@dataclass(frozen=True)
class Regime:
    """A family of schedules.

    Attributes:
        name: on the command line and in the results.
        title: in tables and figures.
        schedule: the factor at each step.
        space: what the tuner may try of it, with every optimizer alike.
    """

    name: str
    title: str
    schedule: Schedule
    space: Space = field(default_factory=dict)


COSINE = Regime(
    *("cosine", f"cosine after {100 * WARMUP:g} % warm-up"),
    lambda steps, _: warmup_cosine(steps, max(1, round(WARMUP * steps))),
)
POWER = Regime(
    *("power", "γ₀ (k + 1)^(-q)", lambda steps, setting: PowerDecay(1.0, setting["q"])),
    {"q": Choice((1 / 2, 1 / 4, 1 / 8, 1 / 16))},
)
COSINE_ONLY = Regime("cosine-only", "cosine without warm-up", lambda steps, _: warmup_cosine(steps, 0))
CONSTANT = Regime("constant", "constant", lambda *_: lambda step: 1.0)
NANOGPT = Regime("nanogpt", "nanoGPT's", lambda steps, _: nanogpt(steps))

REGIMES = {regime.name: regime for regime in (COSINE, POWER)}
"""Those in which optimizers are tuned."""
