"""Train long tasks with published settings; nothing is tuned.

Results go to one JSON file for each task and row, after every run; started again, the command resumes where it was. All
rows are run with the first seed before any is run with the second.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.training import cifar, data, models
from benchmarks.training.console import add_choice, command_parser, seeds
from benchmarks.training.long_rows import CLIP, ON_REQUEST, ROWS
from benchmarks.training.optimizers import Row
from benchmarks.training.schedules import COSINE_ONLY, NANOGPT, NANOGPT_FLOOR, NANOGPT_WARMUP, Regime
from benchmarks.training.tasks import TASKS, VOCABULARY, Split, Task, grey, text_loss, text_parts, windows
from benchmarks.training.train import SEEDS, Run, device_name, train_all

CONTEXT = 64
MNIST_TRAIN = 55_000
EVERY_WINDOW = 3
"""Evaluations along a run use every third window of the validation text; the last one uses them all."""
NANOGPT_PROTOCOL = {"warmup": NANOGPT_WARMUP, "floor": NANOGPT_FLOOR, "clip": CLIP}
COSINE_PROTOCOL = {"warmup": 0, "floor": 0.0, "clip": None}


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


def nano_gpt(steps: int) -> Task:
    """Return nanoGPT's setting for a CPU, with a number of steps."""
    return replace(
        TASKS["shakespeare"],
        name=f"gpt-{steps}",
        title=f"character GPT, {steps:,} steps",
        fit=text_fit,
        test=text_test,
        model=gpt,
        metric=text_metric,
        batch=12,
        steps=steps,
        evaluations=40,
        validation_subset=every_window,
        final_losses=True,
        protocol=NANOGPT_PROTOCOL,
    )


def lenet(epochs: int, batch: int = 128) -> Task:
    """Return LeNet-5 on all of MNIST."""
    return replace(
        TASKS["mnist"],
        name=f"mnist-{epochs}",
        title=f"MNIST, LeNet-5, {epochs} epochs",
        fit=mnist_fit,
        test=mnist_test,
        batch=batch,
        steps=epochs * (MNIST_TRAIN // batch) // 40 * 40,
        evaluations=40,
        final_losses=True,
        protocol=COSINE_PROTOCOL,
    )


def cifar10(name: str, title: str, model: Callable[[], torch.nn.Module], epochs: int, samples: int) -> Task:
    """Return a network on the first images of CIFAR-10 with augmentation, evaluated after each epoch."""
    return replace(
        TASKS["cifar10"],
        name=name,
        title=title,
        fit=partial(cifar.fit, samples),
        test=cifar.test,
        model=model,
        loss=cifar.loss,
        metric=cifar.accuracy,
        batch=cifar.BATCH,
        steps=epochs * (samples // cifar.BATCH),
        evaluations=epochs,
        final_losses=True,
        protocol=COSINE_PROTOCOL,
    )


WIDE_NIN = partial(models.network_in_network, 192, dropout=0.5)
"""Network-in-Network of the paper's width."""

LONG = {
    task.name: task
    for task in (
        nano_gpt(2_000),
        lenet(20),
        nano_gpt(10_000),
        cifar10("cifar10-nin-5", "CIFAR-10, Network-in-Network 192, 5 epochs", WIDE_NIN, 5, cifar.TRAIN),
    )
}
REGIMES = {"gpt-2000": NANOGPT, "mnist-20": COSINE_ONLY, "gpt-10000": NANOGPT, "cifar10-nin-5": COSINE_ONLY}


# --- the runs -------------------------------------------------------------------------------------------------------


def on_device(task: Task, device: torch.device) -> Task:
    """Return a task under the name that its results have on a device: those of a GPU stand apart."""
    if device.type == "cpu":
        return task
    protocol = {**task.protocol, "device": device_name(device)}
    return replace(task, name=f"{task.name}-gpu", title=f"{task.title}, on a GPU", protocol=protocol)


def names(task: str, row: str) -> tuple[str, ...]:
    """Return where the results of a row on a task are stored."""
    return "long", task, row


def run(task: Task, regime: Regime, row: Row, *seeds: int) -> Run:
    record = {"title": row.title, "torch": str(torch.__version__)}
    return Run(names(task.name, row.name), task, regime, row, {}, seeds, record)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    parser = command_parser("training-long", __doc__)
    add_choice(parser, "--task", ROWS, [task for task in ROWS if task not in ON_REQUEST])
    add_choice(parser, "--optimizer", dict.fromkeys(name for rows in ROWS.values() for name in rows))
    parser.add_argument("--seeds", type=seeds, default=list(SEEDS), help="whole numbers of at least 1 (1,2,3)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = [
        run(on_device(LONG[task], options.device), REGIMES[task], ROWS[task][name], seed)
        for task in options.task
        for seed in options.seeds
        for name in options.optimizer
        if name in ROWS[task]
    ]
    return train_all(runs, options)
