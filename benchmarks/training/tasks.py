"""The tasks, one row each: data, network, loss, and the length of a run.

A task's training and validation data come from one function and its test data from another, which only the runs of the
chosen settings call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.training import data, models

Tensor = torch.Tensor
Split = tuple[Tensor, Tensor]
"""Inputs and targets, one row a sample."""
EVALUATIONS = 25


@dataclass(frozen=True)
class Task:
    """A problem to train on.

    Attributes:
        name: on the command line and in the results.
        title: in tables and figures.
        fit: returns the training and the validation split.
        test: returns the test split.
        model: makes the network, from torch's global generator.
        loss: of a model on inputs and targets, a 0-d tensor.
        metric: of a model on the test split, a number.
        metric_name: its heading.
        higher_is_better: which way the metric goes.
        batch: samples of a step.
        steps: of one run.
        evaluations: how often the model is evaluated along a run.
        validation_subset: the part of the validation split on which it is.
        final_losses: whether final runs record the losses and metrics on all of the validation and test splits at
            their end, not only the metric on the test split.
        protocol: what else must be the same for results to be continued.
    """

    name: str
    title: str
    fit: Callable[[], tuple[Split, Split]]
    test: Callable[[], Split]
    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    metric: Callable[[nn.Module, Tensor, Tensor], float]
    metric_name: str
    higher_is_better: bool
    batch: int
    steps: int
    evaluations: int = EVALUATIONS
    validation_subset: Callable[[Split], Split] = lambda split: split
    final_losses: bool = False
    protocol: Mapping[str, Any] = field(default_factory=dict)


def classification_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the percentage of right answers."""
    return 100 * float((model(x).argmax(1) == y).double().mean())


# --- images ---------------------------------------------------------------------------------------------------------


def digits_splits() -> list[Split]:
    """Return scikit-learn's digits as training, validation and test splits, 60 %, 20 % and 20 %."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    n = len(x) // 5
    parts = (order[2 * n :], order[:n], order[n : 2 * n])
    return [(torch.tensor(x[i] / 16, dtype=torch.float32), torch.tensor(y[i], dtype=torch.int64)) for i in parts]


def digits_fit() -> tuple[Split, Split]:
    train, validation, _ = digits_splits()
    return train, validation


def grey(images: np.ndarray, labels: np.ndarray) -> Split:
    return torch.tensor(images)[:, None].float() / 255, torch.tensor(labels.astype(np.int64))


def colour(images: np.ndarray, labels: np.ndarray) -> Split:
    # channels_last is the layout in which a CPU convolves fastest
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last), torch.tensor(labels.astype(np.int64))


TRAIN, VALIDATION, TEST = 10_000, 1_000, 5_000
CIFAR_TRAIN, CIFAR_VALIDATION, CIFAR_TEST = 8_000, 500, 2_000


def grey_fit(load: Callable[[], data.Images]) -> tuple[Split, Split]:
    images, end = load(), TRAIN + VALIDATION
    x, y = images.x_train, images.y_train
    return grey(x[:TRAIN], y[:TRAIN]), grey(x[TRAIN:end], y[TRAIN:end])


def grey_test(load: Callable[[], data.Images]) -> Split:
    images = load()
    return grey(images.x_test[:TEST], images.y_test[:TEST])


def cifar_fit() -> tuple[Split, Split]:
    images = data.cifar10(CIFAR_TRAIN + CIFAR_VALIDATION, 1)
    x, y = images.x_train, images.y_train
    return colour(x[:CIFAR_TRAIN], y[:CIFAR_TRAIN]), colour(x[CIFAR_TRAIN:], y[CIFAR_TRAIN:])


def cifar_test() -> Split:
    images = data.cifar10(1, CIFAR_TEST)
    return colour(images.x_test, images.y_test)


# --- text -----------------------------------------------------------------------------------------------------------

CONTEXT = 32
WINDOWS = 192
VOCABULARY = 65


def tokens() -> Tensor:
    text = data.shakespeare()
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    return torch.tensor([letters[letter] for letter in text])


def windows(text: Tensor, stride: int, context: int = CONTEXT) -> Split:
    """Return the pieces of a text and what comes one character later; views, since the windows overlap."""
    pieces = text.unfold(0, context + 1, stride)
    return pieces[:, :-1], pieces[:, 1:]


def text_parts() -> tuple[Tensor, Tensor, Tensor]:
    """Return 90 % of the text for training, 5 % for validation, 5 % for testing."""
    text = tokens()
    a, b = int(0.9 * len(text)), int(0.95 * len(text))
    return text[:a], text[a:b], text[b:]


def spread(split: Split) -> Split:
    """Return `WINDOWS` windows, evenly from the whole of a split."""
    chosen = torch.linspace(0, len(split[0]) - 1, WINDOWS).long()
    return split[0][chosen], split[1][chosen]


def text_fit() -> tuple[Split, Split]:
    train, validation, _ = text_parts()
    return windows(train, 1), spread(windows(validation, CONTEXT))


def text_test() -> Split:
    return spread(windows(text_parts()[2], CONTEXT))


def text_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x).flatten(0, 1), y.flatten())


def text_metric(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(text_loss(model, x, y))


# --- Burgers' equation ----------------------------------------------------------------------------------------------

VISCOSITY = 0.1 / np.pi  # ten times the usual 0.01 / pi, so that a short run resolves the front


def points(count: int, seed: int) -> np.ndarray:
    """Return points (t, x) drawn from [0, 1] x [-1, 1]."""
    return np.random.default_rng(seed).uniform((0, -1), (1, 1), (count, 2))


def collocation(count: int, seed: int) -> Split:
    x = torch.tensor(points(count, seed), dtype=torch.float32)
    return x, torch.zeros(count)


def residual_loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """Return the mean square of u_t + u u_x - nu u_xx at the points; no target enters."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        u = model(x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        u_t, u_x = first.unbind(1)
        u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0][:, 1]
        return (u_t + u * u_x - VISCOSITY * u_xx).square().mean()


def exact_burgers(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the solution with u(0, x) = -sin(pi x) on [-1, 1] and zero at both ends, after Cole and Hopf."""
    z, weights = np.polynomial.hermite.hermgauss(120)
    y = x[:, None] - np.sqrt(4 * VISCOSITY * t)[:, None] * z
    kernel = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * VISCOSITY))
    return -(np.sin(np.pi * y) * kernel).sum(1) / kernel.sum(1)


def burgers_test() -> Split:
    x = points(2000, seed=2)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(exact_burgers(x[:, 0], x[:, 1]), dtype=torch.float32)


def relative_error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the distance from the exact solution, in per cent of its norm."""
    return 100 * float((model(x) - y).norm() / y.norm())


# --- the rows -------------------------------------------------------------------------------------------------------


def classification(
    name: str,
    title: str,
    fit: Callable[[], tuple[Split, Split]],
    test: Callable[[], Split],
    model: Callable[[], nn.Module],
    steps: int,
) -> Task:
    return Task(
        *(name, title, fit, test, model, classification_loss, accuracy),
        metric_name="test accuracy, %",
        higher_is_better=True,
        batch=32,
        steps=steps,
    )


NIN = partial(models.network_in_network, 18)

ROWS = (
    classification(
        *("digits", "digits, perceptron", digits_fit, lambda: digits_splits()[2]),
        model=lambda: models.perceptron(64, 64, 10),
        steps=400,
    ),
    Task(
        *("burgers", "Burgers' equation, physics-informed", lambda: (collocation(4096, 0), collocation(1024, 1))),
        *(burgers_test, models.BurgersSolution, residual_loss, relative_error),
        metric_name="test error, %",
        higher_is_better=False,
        batch=256,
        steps=600,
    ),
    classification(
        *("mnist", "MNIST, LeNet-5", lambda: grey_fit(data.mnist), lambda: grey_test(data.mnist), models.lenet),
        steps=300,
    ),
    classification(
        *("fashion", "Fashion-MNIST, CNN", lambda: grey_fit(data.fashion), lambda: grey_test(data.fashion)),
        model=models.small_cnn,
        steps=400,
    ),
    Task(
        *("shakespeare", "tiny Shakespeare, GPT", text_fit, text_test),
        model=lambda: models.GPT(VOCABULARY, CONTEXT, width=48, heads=4, layers=2),
        loss=text_loss,
        metric=text_metric,
        metric_name="test nats a character",
        higher_is_better=False,
        batch=16,
        steps=400,
    ),
    classification("cifar10", "CIFAR-10, Network-in-Network", cifar_fit, cifar_test, NIN, steps=200),
)

TASKS = {task.name: task for task in ROWS}
