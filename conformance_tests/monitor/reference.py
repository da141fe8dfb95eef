"""A run on linear regression and what a monitor should say of it, from the papers' equations, in NumPy.

Nothing here calls the package: dampings follow from the table of docs/momentum.md, the sharpness from all eigenvalues,
and the stability limit from the eigenvalues of the 2x2 matrix of a step, by bisection.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

N_STEPS = 12
EVERY = 4
# Keras on JAX and torch has data in float32, in which these numbers are exact
X = np.round(64 * np.random.default_rng(3).normal(size=(6, 4)) * [1.0, 2.0, 0.5, 1.5]) / 64
Y = np.round(64 * np.random.default_rng(4).normal(size=(6, 1))) / 64
START = np.round(64 * np.random.default_rng(5).normal(size=(4, 1))) / 64
HESSIAN = 2 / len(X) * X.T @ X
"""Of the mean squared error; the loss is quadratic."""


@dataclass(frozen=True)
class Setting:
    """An algorithm in one of its forms."""

    algorithm: str
    lr: float
    hyper: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "-".join([self.algorithm, *self.hyper])

    def dampings(self, lr: float) -> tuple[float, float, float]:
        """Return gamma, alpha and beta."""
        if "momentum" not in self.hyper:
            defaults = {"INNA": (0.5, 0.1), "INNAprop": (0.1, 0.9)}[self.algorithm]
            return lr, self.hyper.get("alpha", defaults[0]), self.hyper.get("beta", defaults[1])
        m = self.hyper["momentum"]
        gamma = np.sqrt(lr) if self.algorithm == "INNA" else np.sqrt(lr * (1 - m))
        return gamma, (1 - m) / gamma, self.hyper.get("lead", 1 + m) * gamma


SETTINGS = (
    Setting("INNA", 0.05),
    Setting("INNA", 0.2, {"alpha": 0.0, "beta": 0.15}),  # no viscosity, and lr above beta
    Setting("INNA", 0.02, {"momentum": 0.9}),
    Setting("INNA", 0.02, {"momentum": 0.8, "lead": 0.4}),
    Setting("INNAprop", 0.01),
    Setting("INNAprop", 0.02, {"alpha": 2.0, "beta": 2.0}),
    Setting("INNAprop", 0.01, {"momentum": 0.9}),
    Setting("INNAprop", 0.01, {"momentum": 0.8, "lead": 3.0}),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
FULLEST = "INNAprop-momentum-lead"


def loss(theta: np.ndarray) -> float:
    return float(np.mean((X @ theta - Y) ** 2))


def gradient(theta: np.ndarray) -> np.ndarray:
    return 2 / len(X) * X.T @ (X @ theta - Y)


def is_stable(h: float, gamma: float, alpha: float, beta: float) -> bool:
    """Return whether a step of INNA, linear on a quadratic of this curvature, contracts."""
    step = [[1 - gamma * beta * h, gamma], [-gamma * (1 - alpha * beta) * h, 1 - alpha * gamma]]
    return bool(np.abs(np.linalg.eigvals(step)).max() < 1)


def stable_sharpness(gamma: float, alpha: float, beta: float) -> float:
    """Return where stability is lost, as the curvature grows."""
    low, high = 1e-6, 1e9
    if not is_stable(low, gamma, alpha, beta):
        return 0.0
    for _ in range(120):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if is_stable(middle, gamma, alpha, beta) else (low, middle)
    return low


def expected(setting: Setting) -> list[dict[str, Any]]:
    """Return the samples of a run, after `EVERY` steps each."""
    gamma, alpha, beta = setting.dampings(setting.lr)
    theta, v, s, D = START, np.zeros_like(START), np.zeros_like(START), np.ones_like(START)
    samples = []
    for k in range(1, N_STEPS + 1):
        q = g = gradient(theta)
        if setting.algorithm == "INNAprop":
            s = 0.999 * s + 0.001 * g**2
            D = np.sqrt(s / (1 - 0.999**k)) + 1e-8
            q = g / D
        theta, v = theta + gamma * (v - beta * q), (1 - alpha * gamma) * v - gamma * (1 - alpha * beta) * q
        if k % EVERY == 0:
            root = np.sqrt(D)
            samples.append(
                {
                    "step": k,
                    "lr": setting.lr,
                    "velocity_norm": np.linalg.norm(v),
                    "loss": loss(theta),
                    "energy": 2 * (1 + alpha * beta) * loss(theta) + np.sum(D * v**2),
                    "sharpness": np.linalg.eigvalsh(HESSIAN / (root * root.T))[-1],
                    "stable_sharpness": stable_sharpness(gamma, alpha, beta),
                }
            )
    return samples
