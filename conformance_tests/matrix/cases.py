"""The cases: which algorithm, with which hyperparameters and step sizes, on which shapes; and what must be refused."""

import math
from dataclasses import dataclass
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
    """A row of the conformance matrix."""

    name: str
    algorithm: str
    hyper: dict[str, float]
    lrs: tuple[float, ...]
    weight_decay: float = 0.0
    published_decay: bool = False

    def setup(self, dtype: str) -> Setup:
        return Setup(self.algorithm, self.hyper, self.lrs, dtype, self.weight_decay, self.published_decay)


def decaying(lr: float, q: float, steps: int = 256) -> tuple[float, ...]:
    return tuple(lr * (k + 1) ** -q for k in range(steps))


def innaprop(**changed: float) -> dict[str, float]:
    return {"alpha": 0.1, "beta": 0.9, "sigma": 0.999, "eps": 1e-8, **changed}


CASES: tuple[Case, ...] = (
    Case("inna-default", "INNA", {"alpha": 0.5, "beta": 0.1}, (0.1,)),
    Case("inna-decaying", "INNA", {"alpha": 0.5, "beta": 0.1}, decaying(0.1, 0.25)),
    Case("inna-no-viscosity", "INNA", {"alpha": 0.0, "beta": 1.0}, (0.01,)),
    Case("inna-alpha-beta-1", "INNA", {"alpha": 2.0, "beta": 0.5}, (0.03,)),  # velocity ignores the gradient
    Case("inna-lr-above-beta", "INNA", {"alpha": 0.5, "beta": 0.01}, (0.1,)),
    Case("inna-alpha-lr-1", "INNA", {"alpha": 10.0, "beta": 0.1}, (0.1,)),  # velocity forgets
    Case("inna-alpha-lr-above-1", "INNA", {"alpha": 15.0, "beta": 0.2}, (0.1,)),  # velocity alternates
    Case("inna-lr-0", "INNA", {"alpha": 0.5, "beta": 0.1}, (0.0,)),
    Case("inna-decay", "INNA", {"alpha": 0.5, "beta": 0.1}, (0.1,), weight_decay=0.3),
    Case("inna-published-decay", "INNA", {"alpha": 0.5, "beta": 0.1}, (0.1,), weight_decay=0.3, published_decay=True),
    Case("innaprop-default", "INNAprop", innaprop(), (0.001,)),
    Case("innaprop-decaying", "INNAprop", innaprop(), decaying(0.01, 0.25)),
    Case("innaprop-2-2", "INNAprop", innaprop(alpha=2.0, beta=2.0), (0.01,)),
    Case("innaprop-lr-is-beta", "INNAprop", innaprop(), (0.9,)),  # the printed form divides by beta - lr
    Case("innaprop-lr-above-beta", "INNAprop", innaprop(beta=0.1), (0.2,)),
    Case("innaprop-sigma-0", "INNAprop", innaprop(sigma=0.0), (0.01,)),
    # 1 - sigma^k as a difference would have few digits
    Case("innaprop-sigma-near-1", "INNAprop", innaprop(sigma=0.9999), (0.01,)),
    Case("innaprop-large-eps", "INNAprop", innaprop(eps=0.5), (0.01,)),
    Case("innaprop-decay", "INNAprop", innaprop(), (0.01,), weight_decay=0.3),
    Case("innaprop-published-decay", "INNAprop", innaprop(), (0.01,), weight_decay=0.3, published_decay=True),
)

DEFAULTS: tuple[Case, ...] = tuple(case for case in CASES if case.name.endswith("-default"))
"""One case of each algorithm, for properties that do not depend on the hyperparameters."""


@dataclass(frozen=True)
class Refusal:
    """An argument that every host must refuse, naming it and its value."""

    argument: str
    value: Any
    error: type[Exception]

    @property
    def id(self) -> str:
        return f"{self.argument}={self.value!r}"


def out_of_range(argument: str, *values: float) -> list[Refusal]:
    return [Refusal(argument, value, ValueError) for value in (*values, math.nan, math.inf, -math.inf)]


def wrong_type(argument: str, *extra: Any) -> list[Refusal]:
    return [Refusal(argument, value, TypeError) for value in ("0.1", None, True, 1j, [0.1], *extra)]


DAMPING = (
    *out_of_range("lr", -0.1),
    *out_of_range("alpha", -1e-9),
    *out_of_range("beta", 0.0, -0.1),
    *out_of_range("weight_decay", -0.1),
    *(refusal for name in ("lr", "alpha", "beta") for refusal in wrong_type(name)),
    # None is how Keras says no decay
    *(refusal for refusal in wrong_type("weight_decay") if refusal.value is not None),
)

REFUSALS: dict[str, tuple[Refusal, ...]] = {
    "INNA": DAMPING,
    "INNAprop": (
        *DAMPING,
        *out_of_range("sigma", -0.1, 1.0),
        *out_of_range("eps", 0.0, -1e-8),
        *(refusal for name in ("sigma", "eps") for refusal in wrong_type(name)),
    ),
}
"""By algorithm."""


def random_arrays(seed: int, shapes: tuple[tuple[int, ...], ...] = SHAPES, dtype: str = "float64") -> list[np.ndarray]:
    """Return standard normal arrays that are exactly representable in a dtype, as float64."""
    rng = np.random.default_rng(seed)
    return [representable(rng.standard_normal(shape), dtype) for shape in shapes]


def representable(x: Any, dtype: str) -> np.ndarray:
    """Round to a dtype and return float64; bfloat16 by hand, so that hosts without ml_dtypes need nothing."""
    x = np.asarray(x, dtype=np.float64)
    if dtype == "bfloat16":
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.rint(mantissa * 2.0**8), exponent - 8)
    return np.asarray(x.astype(dtype), dtype=np.float64)


EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from 1 to the next number of a dtype."""
