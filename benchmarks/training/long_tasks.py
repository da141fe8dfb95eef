"""The long tasks: published settings, run to the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.training import cifar, data, models
from benchmarks.training.tasks import TASKS, VOCABULARY, Split, Task, grey, text_loss, text_parts, windows

CONTEXT = 64
MNIST_TRAIN = 55_000
EVERY_WINDOW = 3
"""Looks on the way take every third window of the validation text; the end of a run takes them all."""


@dataclass(frozen=True)
class LongTask:
    """A task with the schedule and the decay of a published setting.

    Attributes:
        task: data, network, loss, batch and steps.
        looks: how often a run is looked at.
        look_at: the part of the validation split that is looked at on the way.
        warmup: steps with rising lr.
        floor: the factor of lr at the last step.
        clip: the greatest norm of a gradient; None does not clip.
        decays: whether a parameter decays.
        about: what else must be the same when a run is gone on with.
    """

    task: Task
    looks: int
    look_at: Callable[[Split], Split]
    warmup: int
    floor: float
    clip: float | None
    decays: Callable[[torch.nn.Parameter], bool]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.task.name


def text_fit() -> tuple[Split, Split]:
    train, validation, _ = text_parts()
    return windows(train, 1, CONTEXT), windows(validation, CONTEXT, CONTEXT)


def text_test() -> Split:
    return windows(text_parts()[2], CONTEXT, CONTEXT)


def every_window(split: Split) -> Split:
    return split[0][::EVERY_WINDOW], split[1][::EVERY_WINDOW]


def gpt() -> models.GPT:
    return models.GPT(VOCABULARY, CONTEXT, width=128, heads=4, layers=4)


def text_metric(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the mean loss, in pieces that stay in a processor's cache."""
    pieces = zip(x.split(64), y.split(64), strict=True)
    return sum(len(a) * float(text_loss(model, a, b)) for a, b in pieces) / len(x)


def mnist_fit() -> tuple[Split, Split]:
    images = data.mnist()
    x, y = images.x_train, images.y_train
    return grey(x[:MNIST_TRAIN], y[:MNIST_TRAIN]), grey(x[MNIST_TRAIN:], y[MNIST_TRAIN:])


def mnist_test() -> Split:
    images = data.mnist()
    return grey(images.x_test, images.y_test)


def nano_gpt(steps: int) -> LongTask:
    """Return nanoGPT's setting for a CPU, with a number of steps."""
    task = replace(
        TASKS["shakespeare"],
        name=f"gpt-{steps}",
        title=f"character GPT, {steps:,} steps",
        fit=text_fit,
        test=text_test,
        model=gpt,
        metric=text_metric,
        batch=12,
        steps=steps,
    )
    return LongTask(task, 40, every_window, warmup=100, floor=0.1, clip=1.0, decays=lambda p: p.ndim >= 2)


def lenet(epochs: int, batch: int = 128) -> LongTask:
    """Return LeNet-5 on all of MNIST, with a cosine to 0 and no warm-up."""
    task = replace(
        TASKS["mnist"],
        name=f"mnist-{epochs}",
        title=f"MNIST, LeNet-5, {epochs} epochs",
        fit=mnist_fit,
        test=mnist_test,
        batch=batch,
        steps=epochs * (MNIST_TRAIN // batch) // 40 * 40,
    )
    return LongTask(task, 40, lambda split: split, warmup=0, floor=0.0, clip=None, decays=lambda p: True)


def cifar10(name: str, title: str, model: Callable[[], torch.nn.Module], epochs: int, samples: int) -> LongTask:
    """Return a network on CIFAR-10 with augmentation, looked at after each epoch, with a cosine to 0 and no warm-up.

    Args:
        name, title: of the task.
        model: makes the network.
        epochs: of a run.
        samples: images to train on, `cifar.TRAIN` for all.
    """
    task = replace(
        TASKS["cifar10"],
        name=name,
        title=title,
        fit=lambda: cifar.fit(samples),
        test=cifar.test,
        model=model,
        loss=cifar.loss,
        metric=cifar.accuracy,
        batch=cifar.BATCH,
        steps=epochs * (samples // cifar.BATCH),
    )
    return LongTask(task, epochs, lambda split: split, warmup=0, floor=0.0, clip=None, decays=lambda p: True)


def wide_nin() -> torch.nn.Module:
    """Return Network-in-Network of the paper's width."""
    return models.network_in_network(192, dropout=0.5)


LONG = {
    long.name: long
    for long in (
        nano_gpt(2_000),
        lenet(20),
        nano_gpt(10_000),
        cifar10("cifar10-nin-5", "CIFAR-10, Network-in-Network 192, 5 epochs", wide_nin, 5, cifar.TRAIN),
    )
}
