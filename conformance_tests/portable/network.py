"""A small network for runs that are handed over: embedding, convolution, normalization, dense layer.

It is written once in each framework, and here in NumPy with derivatives by hand. Parameters go under the names
and in the layouts of Keras. Kernels are square, so that a wrong layout fits every shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance_tests.distances import largest

VOCABULARY, CHANNELS, WIDTH, LENGTH, BATCH = 7, 4, 3, 6, 8
EPSILON = 1e-3
"""Of the normalization: Keras' default."""

LAYERS = (("embedding", "embedding"), ("conv", "conv1d"), ("norm", "norm"), ("dense", "dense"))
"""Name and kind of each layer, in every framework."""

SHAPES = {
    "embedding/embeddings": (VOCABULARY, CHANNELS),
    "conv/kernel": (WIDTH, CHANNELS, CHANNELS),
    "conv/bias": (CHANNELS,),
    "norm/gamma": (CHANNELS,),
    "norm/beta": (CHANNELS,),
    "dense/kernel": (CHANNELS, CHANNELS),
    "dense/bias": (CHANNELS,),
}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """How a run goes.

    Attributes:
        algorithm: INNA or INNAprop.
        lr: of step 0; step k has lr (k + 1)^(-q).
        hyper: dampings and the like.
        weight_decay: rate.
    """

    algorithm: str
    lr: float
    hyper: dict[str, float]
    q: float = 0.25
    weight_decay: float = 0.1

    def lr_of(self, k: int) -> float:
        return self.lr * (k + 1.0) ** -self.q


TRAININGS = {
    "INNA": Training("INNA", 0.1, {"alpha": 0.5, "beta": 0.1}),
    "INNAprop": Training("INNAprop", 0.01, {"alpha": 0.1, "beta": 0.9, "sigma": 0.99, "eps": 1e-6}),
}


@dataclass(frozen=True)
class Leg:
    """A part of a run in one framework.

    Attributes:
        training: which one.
        first, last: steps, the last excluded.
        load: file to start from; the network's own initial values else.
        source: whose file that is.
        save: file to save to at the end, or none.
    """

    training: Training
    first: int
    last: int
    load: str | None = None
    source: str = ""
    save: str | None = None


def initial_parameters(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in SHAPES.items()}


def batch(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and targets of step k."""
    rng = np.random.default_rng(1000 + k)
    return rng.integers(0, VOCABULARY, (BATCH, LENGTH)), rng.standard_normal((BATCH, CHANNELS))


def gradients(p: Arrays, tokens: np.ndarray, targets: np.ndarray) -> Arrays:
    """Return the gradient of the mean squared error, derived by hand."""
    x = p["embedding/embeddings"][tokens]
    n_windows = LENGTH - WIDTH + 1
    windows = np.stack([x[:, i : i + n_windows] for i in range(WIDTH)], axis=2)  # (batch, window, width, in)
    z = np.einsum("btwi,wio->bto", windows, p["conv/kernel"]) + p["conv/bias"]
    scale = 1 / np.sqrt(z.var(axis=-1, keepdims=True) + EPSILON)
    normal = (z - z.mean(axis=-1, keepdims=True)) * scale
    u = normal * p["norm/gamma"] + p["norm/beta"]
    h = u / np.sqrt(1 + u * u)
    mean = h.mean(axis=1)
    error = mean @ p["dense/kernel"] + p["dense/bias"] - targets

    out = 2 * error / error.size
    inner = np.repeat((out @ p["dense/kernel"].T)[:, None] / n_windows, n_windows, axis=1) * (1 + u * u) ** -1.5
    d = inner * p["norm/gamma"]
    dz = scale * (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True))
    dwindows = np.einsum("bto,wio->btwi", dz, p["conv/kernel"])
    dx = np.zeros_like(x)
    for i in range(WIDTH):
        dx[:, i : i + n_windows] += dwindows[:, :, i]
    embeddings = np.zeros_like(p["embedding/embeddings"])
    np.add.at(embeddings, tokens, dx)
    return {
        "embedding/embeddings": embeddings,
        "conv/kernel": np.einsum("btwi,bto->wio", windows, dz),
        "conv/bias": dz.sum(axis=(0, 1)),
        "norm/gamma": (inner * normal).sum(axis=(0, 1)),
        "norm/beta": inner.sum(axis=(0, 1)),
        "dense/kernel": mean.T @ out,
        "dense/bias": out.sum(axis=0),
    }


def relative_error(got: Arrays, want: Arrays) -> float:
    """Return the largest difference of an array, relative to its largest element."""
    assert got.keys() == want.keys()
    return largest(float(np.max(np.abs(got[name] - x)) / np.max(np.abs(x))) for name, x in want.items())


NAMING = {"torch": "torch", "optax": "flax", "keras": "keras", "arrays": "keras"}
"""By framework: what parameters are called in its network."""

PREFIX = {"torch": "", "optax": "", "keras": "net/", "arrays": ""}
"""By framework: what comes before the name of a layer."""


def layout(source: str, target: str) -> Any:
    """Return what a user states to hand the network's state over."""
    from inna_core.portable import mapping_of_layers

    if source == target:
        return None
    layers = [(PREFIX[source] + name, PREFIX[target] + name, kind) for name, kind in LAYERS]
    return mapping_of_layers(layers, source=NAMING[source], target=NAMING[target])
