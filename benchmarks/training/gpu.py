"""Train CIFAR-10 on a GPU, for as many epochs as fit into some minutes.

Network-in-Network at the width of INNA's paper and ResNet-18, each with AdamW, INNAprop with AdamW's setting, SGD with
Nesterov's momentum, and INNA with SGD's. An epoch of each network is measured first; then every run gets an equal part
of the time that is left, unless --epochs says how many it trains. Results go to one JSON file for each task and row,
after every run. Started again, the command runs what is missing, with the number of epochs of the runs that are there.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.training import cifar, long, models
from benchmarks.training.console import command_parser, positive, seeds
from benchmarks.training.data import MissingDataError
from benchmarks.training.long import WIDE_NIN, cifar10
from benchmarks.training.long_rows import CIFAR
from benchmarks.training.results import Store
from benchmarks.training.schedules import COSINE_ONLY
from benchmarks.training.tasks import Task
from benchmarks.training.train import device_name, load, train, train_all

RESERVE = 0.05
"""The part of the time that is not planned for."""


@dataclass(frozen=True)
class Network:
    """A network to train; its task in the results, its title, and what makes it."""

    task: str
    title: str
    make: Callable[[], torch.nn.Module]

    def channels_last(self) -> torch.nn.Module:
        model: Any = self.make()  # torch's annotations know this argument for tensors only
        return model.to(memory_format=torch.channels_last)  # as the images


NETWORKS = {
    "nin": Network("cifar10-nin-gpu", "CIFAR-10, Network-in-Network 192", WIDE_NIN),
    "resnet18": Network("cifar10-resnet18-gpu", "CIFAR-10, ResNet-18", models.resnet18),
}


def task_of(network: Network, epochs: int, samples: int, on: torch.device) -> Task:
    """Return the task to train a network for some epochs on a device."""
    task = cifar10(network.task, network.title, network.channels_last, epochs, samples)
    precision = "float32" if on.type == "cpu" else "bfloat16 autocast, float32 parameters"
    about = {"epochs": epochs, "samples": samples, "device": device_name(on), "precision": precision}
    return replace(task, protocol={**task.protocol, **about})


def seconds_an_epoch(network: Network, samples: int, on: torch.device) -> float:
    """Return the seconds of the second epoch with its evaluation; the first compiles kernels and chooses algorithms."""
    times: list[float] = []
    task = task_of(network, 2, samples, on)

    def advance(_: int) -> None:
        times.append(time.perf_counter())

    train(long.run(task, COSINE_ONLY, CIFAR["adamw"]), load(task, on), 0, curve=True, advance=advance)
    return times[1] - times[0]


def epochs_of(seconds: Mapping[str, float], left: float, runs: int) -> dict[str, int]:
    """Return how many epochs of each network fit into the seconds left, at least one, for some runs of each network."""
    share = max(0.0, left) * (1 - RESERVE) / runs
    return {name: max(1, math.floor(share / (len(seconds) * epoch))) for name, epoch in seconds.items()}


def stored_epochs(network: Network, store: Store) -> int | None:
    """Return the number of epochs of the runs that are stored, or None without any."""
    found = (store.read(*long.names(network.task, row)) for row in CIFAR)
    return next((stored["protocol"]["epochs"] for stored in found if stored), None)


def minutes(text: str) -> float:
    """Parse a positive number of minutes."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} (expected a number of minutes above 0)")
    return value


def samples(text: str) -> int:
    """Parse a number of training images that fills a batch."""
    value = positive(text)
    if not cifar.BATCH <= value <= cifar.TRAIN:
        raise argparse.ArgumentTypeError(f"{text!r} (expected {cifar.BATCH} to {cifar.TRAIN})")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("training-gpu", __doc__, on="cuda", network=NETWORKS, optimizer=CIFAR)
    parser.add_argument("--minutes", type=minutes, default=8.0, help="for all that is run (%(default)s)")
    parser.add_argument("--epochs", type=positive, help="of every run, instead of as many as fit")
    parser.add_argument("--seeds", type=seeds, default=[1], help="whole numbers of at least 1 (1)")
    parser.add_argument(
        "--samples", type=samples, default=cifar.TRAIN, help="the first so many training images (%(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    start = time.perf_counter()
    options = parse(arguments)
    on, store = options.device, Store(options.out)
    torch.backends.cudnn.benchmark = True
    networks = {name: NETWORKS[name] for name in options.network}
    epochs = {name: options.epochs or stored_epochs(network, store) for name, network in networks.items()}
    new = [name for name, stored in epochs.items() if stored is None]
    try:
        seconds = {name: seconds_an_epoch(networks[name], options.samples, on) for name in new}
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 1
    left = 60 * options.minutes - (time.perf_counter() - start)
    planned = epochs_of(seconds, left, len(options.optimizer) * len(options.seeds))
    for name in new:
        print(f"{name}: {seconds[name]:.2f} s an epoch, {planned[name]} epochs a run")
    tasks = [task_of(n, epochs[name] or planned[name], options.samples, on) for name, n in networks.items()]
    runs = [
        long.run(task, COSINE_ONLY, CIFAR[row], seed)
        for seed in options.seeds
        for task in tasks
        for row in options.optimizer
    ]
    return train_all(runs, options)
