"""The oracle: the recurrences as the papers print them, in psi form and 50-digit arithmetic.

Nothing here is taken from `inna_core`. The arrays are NumPy arrays of mpmath numbers, so that a formula reads as it is
printed; velocities exist only at the border, where they are translated by psi's definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from conformance_tests import distances
from conformance_tests.matrix.cases import Algorithm, Setup

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


def papers_terms(hyper: Arrays, lr: Any, unit: Any) -> tuple[Any, Any, Any]:
    """Return gamma, alpha and beta, which follow from gamma^2 = lr unit where momentum and lead are given."""
    if "momentum" not in hyper:
        return lr, hyper["alpha"], hyper["beta"]
    m = hyper["momentum"]
    gamma = mpmath.sqrt(lr * unit)
    return gamma, (1 - m) / gamma, hyper.get("lead", 1 + m) * gamma


def inna_step(hyper: Arrays, lr: Any, g: Any, theta: Any, state: Arrays, k: int, unit: Any = 1) -> Step:
    """INNA's step, through psi and back."""
    v = state["velocity"]
    if "momentum" in hyper and lr == 0:  # alpha is infinite; in the limit alpha gamma = 1 - m, and all else vanishes
        return summed(theta=(theta,), velocity=(hyper["momentum"] * v,))
    gamma, alpha, beta = papers_terms(hyper, lr, unit)
    theta_next, psi_next = inna(g, theta, psi_of(theta, v, alpha, beta), gamma, alpha, beta)
    scales = {
        "theta": largest(theta, gamma * v, gamma * beta * g),
        "velocity": largest(v, gamma * alpha * v, gamma * g, gamma * alpha * beta * g),
    }
    return Step(theta_next, {"velocity": velocity_of(theta_next, psi_next, alpha, beta)}, scales)


def innaprop_step(hyper: Arrays, lr: Any, g: Any, theta: Any, state: Arrays, k: int) -> Step:
    """INNAprop's step: INNA's, driven by the scaled gradient."""
    unit = 1 - hyper.get("momentum", 0)
    sigma, s = hyper["sigma"], state["second_moment"]
    q, s_next = scaled_gradient(g, s, k, sigma, hyper["eps"])
    step = inna_step(hyper, lr, q, theta, state, k, unit)
    scale = largest(sigma * s, (1 - sigma) * g**2)
    return Step(step.theta, {**step.state, "second_moment": s_next}, {**step.scales, "second_moment": scale})


def summed(theta: tuple[Any, ...], **state: tuple[Any, ...]) -> Step:
    """Return the step of an algorithm whose next parameter and fields of state are sums of these terms."""
    terms = {"theta": theta, **state}
    sums = {name: sum(values[1:], values[0]) for name, values in terms.items()}
    return Step(sums.pop("theta"), sums, {name: largest(*values) for name, values in terms.items()})


def one_step(algorithm: Algorithm, setup: Setup, g: Any, theta: Any, state: Arrays, k: int) -> Step:
    """One step of an algorithm from (theta, state), with weight decay, whatever the algorithm."""
    hyper = {name: mpmath.mpf(value) for name, value in setup.hyper.items()}
    gamma, decay = mpmath.mpf(setup.lr(k)), mpmath.mpf(setup.weight_decay)
    g, theta = exact(g), exact(theta)
    state = {name: exact(state[name]) for name in algorithm.state}
    step = algorithm.step(hyper, gamma, g, theta, state, k)
    # what decays is the parameter before the step
    pull = gamma * decay * theta
    scales = {**step.scales, "theta": max(step.scales["theta"], largest(pull))}
    if not setup.published_decay:
        return Step(step.theta - pull, step.state, scales)
    # as published, psi stays while theta shrinks, and that pushes the velocity
    alpha, beta, v, shrunk = hyper["alpha"], hyper["beta"], state["velocity"], theta - pull
    pushed = velocity_of(shrunk, psi_of(theta, v, alpha, beta), alpha, beta)
    step = algorithm.step(hyper, gamma, g, shrunk, {**state, "velocity": pushed}, k)
    push = (1 / beta - alpha) * pull
    scales["theta"] = max(scales["theta"], largest(gamma * push))
    scales["velocity"] = max(scales["velocity"], largest(push))
    return Step(step.theta, step.state, scales)


def largest(*terms: Any) -> float:
    return distances.largest(float(abs(x)) for term in terms for x in np.ravel(term))
