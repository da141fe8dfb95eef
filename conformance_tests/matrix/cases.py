"""What a row of the table says about an algorithm (its cases, its state, what it must refuse), and random arrays."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SHAPES: tuple[tuple[int, ...], ...] = ((), (7,), (3, 4), (2, 1, 3), (0, 5))
"""Shapes of the parameters of one run, 0-d and empty included."""


@dataclass(frozen=True)
class Setup:
    """What a host needs to open a run.

    Attributes:
        algorithm: class name in `inna_core`.
        hyper: the algorithm's hyperparameters.
        lrs: step size of each step; a constant schedule is one number.
        dtype: of the parameters.
        weight_decay: rate.
        published_decay: whether the decay acts on the velocity too.
    """

    algorithm: str
    hyper: dict[str, Any]
    lrs: tuple[float, ...]
    dtype: str = "float64"
    weight_decay: float = 0.0
    published_decay: bool = False

    def lr(self, k: int) -> float:
        return self.lrs[min(k, len(self.lrs) - 1)]


@dataclass(frozen=True)
class Case:
    """Hyperparameters and step sizes of an algorithm.

    Attributes:
        name: of the case; in the table without the algorithm's, which `Algorithm` puts before it.
        lrs: step size of each step; a constant schedule is one number.
        hyper: hyperparameters; in the table only those that are not the algorithm's own.
        without: those of the algorithm's own that are not given.
        weight_decay: rate.
        published_decay: whether the decay acts on the velocity too.
        algorithm: class name in `inna_core`, filled in by `Algorithm`.
    """

    name: str
    lrs: tuple[float, ...]
    hyper: dict[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    weight_decay: float = 0.0
    published_decay: bool = False
    algorithm: str = ""

    def setup(self, dtype: str) -> Setup:
        return Setup(self.algorithm, self.hyper, self.lrs, dtype, self.weight_decay, self.published_decay)


@dataclass(frozen=True)
class Refusal:
    """An argument that every host must refuse, naming it and its value."""

    argument: str
    value: Any
    error: type[Exception]

    @property
    def id(self) -> str:
        return f"{self.argument}={self.value!r}"


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of `inna_core`.

    Attributes:
        name: of the class in `inna_core`, `inna_torch` and `inna_keras`.
        hyper: hyperparameters of its cases, where a case does not say otherwise.
        state: fields of its state, the counter aside, and which numbers they hold: "any" or "nonnegative".
        step: the paper's step in 50-digit arithmetic, ``(hyper, lr, gradient, theta, state, k) -> oracle.Step``.
        cases: compared with that step on every host; the first one is the default.
        trial: step size and hyperparameters at which the hosts' own tests see it move, in a few steps and not too far.
        refused: by hyperparameter, numbers out of its range; NaN, infinities and wrong types are added to them.
        optional: hyperparameters for which None stands for a default.
        optax: name of the function in `inna_optax`, if it is not the name in lower case.
    """

    name: str
    hyper: Mapping[str, float]
    state: Mapping[str, str]
    step: Callable[..., Any]
    cases: tuple[Case, ...]
    trial: Case
    refused: Mapping[str, tuple[float, ...]]
    optional: tuple[str, ...] = ()
    optax: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "optax", self.optax or self.name.lower())
        object.__setattr__(self, "cases", tuple(map(self._filled, self.cases)))
        object.__setattr__(self, "trial", self._filled(self.trial))

    def _filled(self, case: Case) -> Case:
        own = {name: value for name, value in self.hyper.items() if name not in case.without}
        hyper = {**own, **case.hyper}
        return replace(case, name=f"{self.optax}-{case.name}", algorithm=self.name, hyper=hyper)

    @property
    def default(self) -> Case:
        return self.cases[0]

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Out of range and of a wrong type, for lr, weight_decay and each hyperparameter."""
        refused: dict[str, tuple[float, ...]] = {"lr": (-0.1,), "weight_decay": (-0.1,), **self.refused}
        optional = ("weight_decay", *self.optional)  # None is how Keras says no decay
        return tuple(
            refusal
            for name, values in refused.items()
            for refusal in (*out_of_range(name, *values), *wrong_type(name))
            if not (name in optional and refusal.value is None)
        )

    def case_with(self, argument: str) -> Case:
        """Return the first case that gives an argument, or the default one."""
        return next((case for case in self.cases if argument in case.hyper), self.default)


def up_and_down(lr: float, steps: int = 200) -> tuple[float, ...]:
    """Return step sizes that rise from 0 and fall back to 0, as with a warm-up and a schedule to the end."""
    return tuple(lr * math.sin(math.pi * k / (steps - 1)) ** 2 if 0 < k < steps - 1 else 0.0 for k in range(steps))


def decaying(lr: float, q: float, steps: int = 256) -> tuple[float, ...]:
    return tuple(lr * (k + 1) ** -q for k in range(steps))


def out_of_range(argument: str, *values: float) -> list[Refusal]:
    return [Refusal(argument, value, ValueError) for value in (*values, math.nan, math.inf, -math.inf)]


def wrong_type(argument: str) -> list[Refusal]:
    return [Refusal(argument, value, TypeError) for value in ("0.1", None, True, 1j, [0.1])]


def random_arrays(seed: int, shapes: tuple[tuple[int, ...], ...] = SHAPES, dtype: str = "float64") -> list[np.ndarray]:
    """Return standard normal arrays that are exactly representable in a dtype, as float64."""
    rng = np.random.default_rng(seed)
    return [representable(rng.standard_normal(shape), dtype) for shape in shapes]


def random_state(fields: Mapping[str, str], k: int, shapes: Any, dtype: str) -> dict[str, list[np.ndarray]]:
    """Return a plausible state before step k, zero before step 0 (as the paper starts: psi_0 is v_0 = 0)."""

    def numbers(kind: str, x: np.ndarray) -> np.ndarray:
        return 0 * x if k == 0 else {"any": x, "nonnegative": abs(x)}[kind]

    return {
        name: [numbers(kind, x) for x in random_arrays(2000 + 10 * k + i, shapes, dtype)]
        for i, (name, kind) in enumerate(fields.items())
    }


def representable(x: Any, dtype: str) -> np.ndarray:
    """Round to a dtype and return float64; bfloat16 by hand, so that hosts without ml_dtypes need nothing."""
    x = np.asarray(x, dtype=np.float64)
    if dtype == "bfloat16":
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.rint(mantissa * 2.0**8), exponent - 8)
    return np.asarray(x.astype(dtype), dtype=np.float64)


EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from 1 to the next number of a dtype."""
