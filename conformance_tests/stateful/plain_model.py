"""INNA and INNAprop written from the equations, one float64 array a parameter, with a bound of the host's rounding."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
STATE_DTYPE = {"bfloat16": "float32", "float16": "float32"}

DAMPINGS = {
    "INNA": [
        {"alpha": 0.5, "beta": 0.1},
        {"alpha": 2.0, "beta": 0.5},
        {"alpha": 0.0, "beta": 0.3},
        {"momentum": 0.9},
        {"momentum": 0.5, "lead": 3.0},
    ],
    "INNAprop": [
        {"alpha": 0.1, "beta": 0.9},
        {"alpha": 2.0, "beta": 2.0},
        {"momentum": 0.9},
        {"momentum": 0.0, "lead": 0.5},
    ],
}


@dataclass
class Record:
    """What a parameter and its state should be.

    Attributes:
        dtype: of the host's parameter.
        theta: the parameter, plus its compensation where it has one.
        v, s: velocity and second moment.
        k: number of steps made.
        error, state_error: what rounding may have added up to, in theta and in the state.
    """

    dtype: str
    theta: np.ndarray
    v: np.ndarray = field(init=False)
    s: np.ndarray = field(init=False)
    k: int = 0
    error: float = 0.0
    state_error: float = 0.0

    def __post_init__(self) -> None:
        self.v, self.s = np.zeros_like(self.theta), np.zeros_like(self.theta)

    def step(self, algorithm: str, g: np.ndarray, hyper: dict[str, Any], lr: float, decay: float) -> None:
        """Make a step with a gradient."""
        unit = 1.0
        q = g
        if algorithm == "INNAprop":
            sigma = hyper["sigma"]
            self.s = sigma * self.s + (1 - sigma) * g**2
            correction = -math.expm1((self.k + 1) * math.log(sigma))  # 1 - sigma^(k+1) would lose three digits
            q = g / (np.sqrt(self.s / correction) + hyper["eps"])
            unit = 1.0 if hyper.get("momentum") is None else 1 - hyper["momentum"]
        if hyper.get("momentum") is None:
            gamma, friction = lr, 1 - hyper["alpha"] * lr
            beta, alpha_beta = hyper["beta"], hyper["alpha"] * hyper["beta"]
        else:
            m = hyper["momentum"]
            lead = 1 + m if hyper.get("lead") is None else hyper["lead"]
            gamma, friction = math.sqrt(lr * unit), m
            beta, alpha_beta = lead * gamma, (1 - m) * lead
        self.k += 1
        largest = self.size(self.theta, self.v, gamma * beta * q, gamma * q, q)
        eps = EPS[STATE_DTYPE.get(self.dtype, self.dtype)]
        self.error += 32 * eps * largest + gamma * self.state_error
        self.state_error += 32 * eps * self.size(self.v, self.s, q)
        if self.dtype in STATE_DTYPE:  # compensations are rounded too
            self.error += EPS[self.dtype] ** 2 * largest + 2.0**-24
        self.theta = self.theta - lr * decay * self.theta + gamma * (self.v - beta * q)
        self.v = friction * self.v - gamma * (1 - alpha_beta) * q

    @staticmethod
    def size(*arrays: np.ndarray) -> float:
        return max((float(np.max(np.abs(x), initial=0.0)) for x in arrays), default=0.0)

    def check(self, theta: np.ndarray, state: dict[str, np.ndarray] | None) -> None:
        """Compare with the host's parameter (plus its compensation) and, where it is given, its state."""
        assert theta.shape == self.theta.shape
        assert self.size(theta - self.theta) <= self.error, (theta, self.theta, self.error)
        if state is not None:
            assert self.size(state["velocity"] - self.v) <= self.state_error + 1e-300, (state, self.v, self.state_error)
            if "second_moment" in state:
                assert self.size(state["second_moment"] - self.s) <= self.state_error + 1e-300


def settings(examples: int, steps: int) -> Any:
    """Return settings of hypothesis under which the same cases are drawn each time."""
    import hypothesis

    return hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*hypothesis.HealthCheck],  # type: ignore[arg-type]
    )
