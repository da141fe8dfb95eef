"""The problem that all hosts solve: data, network, initial weights and batches, made once by NumPy.

The network is 64 inputs, 32 SiLU units (a sigmoid(a)), 10 outputs with softmax cross-entropy. Its parameters are
listed as W1, b1, W2, b2 everywhere, the matrices with one column per unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

import inna_core

HIDDEN, CLASSES, BATCH, TRAINING_IMAGES = 32, 10, 32, 1344
SEED = 0
EPOCHS = 15

# alpha and beta are the library's defaults on every host, and so is the first step size.
LR = inna_core.INNA.default_lr
DECAY = 1 / 8


@dataclass(frozen=True)
class Problem:
    """What a host needs to train: everything in float64, labels in int64.

    Attributes:
        x, y: training images, one per row, and their labels.
        x_test, y_test: images and labels that are kept for the test accuracy.
        w1, b1, w2, b2: initial parameters.
        batches: indices of training images, shape (epochs, batches per epoch, images per batch).
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    batches: np.ndarray

    @property
    def weights(self) -> list[np.ndarray]:
        return [self.w1, self.b1, self.w2, self.b2]

    @property
    def steps(self) -> int:
        return self.batches.shape[0] * self.batches.shape[1]

    def accuracy(self, scores: np.ndarray) -> float:
        """Return the share of test images whose largest score is that of their label."""
        return float(np.mean(np.argmax(scores, axis=1) == self.y_test))

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path) as arrays:
            return cls(**arrays)


def digits(epochs: int) -> Problem:
    """Return scikit-learn's 8 x 8 digits, split, scaled and batched by a fixed seed."""
    from sklearn.datasets import load_digits  # here, so that a worker does not spend its start-up on it

    rng = np.random.default_rng(SEED)
    data: Any = load_digits()
    images, labels = data.data, data.target
    order = rng.permutation(len(images))
    train, test = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    x = (images - images[train].mean()) / images[train].std()
    y = labels.astype(np.int64)
    inputs = x.shape[1]
    return Problem(
        x=x[train],
        y=y[train],
        x_test=x[test],
        y_test=y[test],
        w1=rng.standard_normal((inputs, HIDDEN)) / np.sqrt(inputs),
        b1=np.zeros(HIDDEN),
        w2=rng.standard_normal((HIDDEN, CLASSES)) / np.sqrt(HIDDEN),
        b2=np.zeros(CLASSES),
        batches=np.stack([rng.permutation(TRAINING_IMAGES).reshape(-1, BATCH) for _ in range(epochs)]),
    )


def flat(weights: Sequence[Any]) -> np.ndarray:
    """Return all parameters, as NumPy arrays or whatever NumPy reads, in one float64 vector."""
    return np.concatenate([np.asarray(w, dtype=np.float64).ravel() for w in weights])
