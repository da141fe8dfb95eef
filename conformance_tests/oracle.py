"""The oracle: the recurrences as the papers print them, in psi form and 50-digit arithmetic.

Nothing here is taken from `inna_core`. The arrays are NumPy arrays of mpmath numbers, so that a formula reads as it is
printed; velocities exist only at the border, where they are translated by psi's definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from conformance_tests.matrix.cases import Setup, random_arrays

mpmath.mp.dps = 50

Arrays = dict[str, Any]


def exact(x: Any) -> Any:
    """Return an array of mpmath numbers equal to the given floats, bit for bit."""
    return np.frompyfunc(mpmath.mpf, 1, 1)(np.asarray(x, dtype=np.float64))


def rounded(x: Any) -> np.ndarray:
    """Return the nearest float64 array."""
    return np.asarray(np.frompyfunc(float, 1, 1)(x), dtype=np.float64)


def psi_of(theta: Any, velocity: Any, alpha: Any, beta: Any) -> Any:
    # From v = (1/beta - alpha) theta - psi / beta.
    return beta * ((1 / beta - alpha) * theta - velocity)


def velocity_of(theta: Any, psi: Any, alpha: Any, beta: Any) -> Any:
    return (1 / beta - alpha) * theta - psi / beta


def inna(g: Any, theta: Any, psi: Any, gamma: Any, alpha: Any, beta: Any) -> tuple[Any, Any]:
    """INNA, Castera et al., JMLR 22(134), 2021: the paper's algorithm, one step."""
    common = (1 / beta - alpha) * theta - psi / beta
    return theta + gamma * (common - beta * g), psi + gamma * common


@dataclass(frozen=True)
class Step:
    """One step from a given state: what comes out, and the magnitude of the terms that were added.

    Attributes:
        theta: next parameter, mpmath numbers.
        state: next state by field name, mpmath numbers.
        scales: the largest |term| of the sums that make theta and each field: rounding errors are relative to these,
            since a sum may cancel.
    """

    theta: Any
    state: Arrays
    scales: Mapping[str, float]


def scaled_gradient(g: Any, s: Any, k: int, sigma: Any, eps: Any) -> tuple[Any, Any]:
    """RMSprop's scaling of step k, counted from 0: the scaled gradient and the next second moment."""
    s = sigma * s + (1 - sigma) * g**2
    return g / (np.frompyfunc(mpmath.sqrt, 1, 1)(s / (1 - sigma ** (k + 1))) + eps), s


def one_step(setup: Setup, g: Any, theta: Any, state: Arrays, k: int) -> Step:
    """One step from (theta, state), through psi and back."""
    hyper = {name: mpmath.mpf(value) for name, value in setup.hyper.items()}
    gamma, decay, alpha, beta = mpmath.mpf(setup.lr(k)), mpmath.mpf(setup.weight_decay), hyper["alpha"], hyper["beta"]
    g, theta, v = exact(g), exact(theta), exact(state["velocity"])
    state_next, scales = {}, {}
    if setup.algorithm == "INNAprop":
        s = exact(state["second_moment"])
        scales["second_moment"] = largest(hyper["sigma"] * s, (1 - hyper["sigma"]) * g**2)
        g, state_next["second_moment"] = scaled_gradient(g, s, k, hyper["sigma"], hyper["eps"])
    psi, shrunk = psi_of(theta, v, alpha, beta), theta - gamma * decay * theta
    # as published, psi stays while theta shrinks, and that pushes the velocity
    start = shrunk if setup.published_decay else theta
    theta_next, psi_next = inna(g, start, psi, gamma, alpha, beta)
    state_next["velocity"] = velocity_of(theta_next, psi_next, alpha, beta)
    push = (1 / beta - alpha) * (start - theta)
    scales["theta"] = largest(theta, gamma * v, gamma * push, gamma * beta * g, gamma * decay * theta)
    scales["velocity"] = largest(v, push, gamma * alpha * v, gamma * g, gamma * alpha * beta * g)
    return Step(theta_next + shrunk - start, state_next, scales)


def largest(*terms: Any) -> float:
    return max((float(abs(x)) for term in terms for x in np.ravel(term)), default=0.0)


def random_state(algorithm: str, k: int, shapes: Any, dtype: str) -> dict[str, list[np.ndarray]]:
    """Return a plausible state before step k, zero before step 0 (as the paper starts: psi_0 is v_0 = 0)."""
    return {
        name: [representation(kind, k, x) for x in random_arrays(2000 + 10 * k + i, shapes, dtype)]
        for i, (name, kind) in enumerate(STATE[algorithm].items())
    }


def representation(kind: str, k: int, x: np.ndarray) -> np.ndarray:
    return 0 * x if k == 0 else {"any": x, "nonnegative": abs(x)}[kind]


STATE: dict[str, dict[str, str]] = {
    "INNA": {"velocity": "any"},
    "INNAprop": {"velocity": "any", "second_moment": "nonnegative"},
}
"""The fields of each algorithm's state, and which numbers they may hold."""
