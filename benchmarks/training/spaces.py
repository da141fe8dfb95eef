"""Declared search spaces: what a tuner may try for each hyperparameter, in Optuna's terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution


@dataclass(frozen=True)
class Log:
    """A number, log-uniform between two bounds."""

    low: float
    high: float

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=True)

    def value(self, drawn: Any) -> Any:
        return drawn

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """One of several values, in order. The tuner draws its index: quasi-random sequences have no categories."""

    values: tuple[Any, ...]

    def distribution(self) -> BaseDistribution:
        return IntDistribution(0, len(self.values) - 1)

    def value(self, drawn: Any) -> Any:
        return self.values[drawn]

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


Space = Mapping[str, Log | Choice]
