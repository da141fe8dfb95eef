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
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training import cifar, long, models
from benchmarks.training.console import device, positive, progress, say, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.long_rows import CIFAR
from benchmarks.training.long_tasks import LongTask, cifar10, wide_nin
from benchmarks.training.results import FOLDER, OtherProtocolError, Store
from benchmarks.training.trial import described, moved

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
    "nin": Network("cifar10-nin-gpu", "CIFAR-10, Network-in-Network 192", wide_nin),
    "resnet18": Network("cifar10-resnet18-gpu", "CIFAR-10, ResNet-18", models.resnet18),
}


def long_task(network: Network, epochs: int, samples: int, on: torch.device) -> LongTask:
    """Return a network as a long task that trains some epochs on a device."""
    precision = "float32" if on.type == "cpu" else "bfloat16 autocast, float32 parameters"
    about = {"epochs": epochs, "samples": samples, "device": described(on), "precision": precision}
    return replace(cifar10(network.task, network.title, network.channels_last, epochs, samples), about=about)


def seconds_an_epoch(network: Network, fit: long.Fit, on: torch.device) -> float:
    """Return the seconds of the second epoch, look included; the first compiles kernels and chooses algorithms."""
    times: list[float] = []
    task = long_task(network, 2, len(fit[0][0]), on)
    long.train(task, fit, CIFAR["adamw"], 0, lambda steps: times.append(time.perf_counter()))
    return times[1] - times[0]


def epochs_of(seconds: Mapping[str, float], left: float, runs: int) -> dict[str, int]:
    """Return how many epochs of each network fit, at least one.

    Args:
        seconds: of an epoch, by network.
        left: seconds for all runs.
        runs: of each network.
    """
    share = max(0.0, left) * (1 - RESERVE) / runs
    return {name: max(1, math.floor(share / (len(seconds) * each))) for name, each in seconds.items()}


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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=minutes, default=8.0, help="for all that is run (%(default)s)")
    parser.add_argument("--epochs", type=positive, help="of every run, instead of as many as fit")
    for option, known in (("--network", NETWORKS), ("--optimizer", CIFAR)):
        parser.add_argument(option, type=some_of(known), default=list(known), help=f"some of {','.join(known)} (all)")
    parser.add_argument("--seeds", type=long.seeds, default=[1], help="whole numbers of at least 1 (1)")
    parser.add_argument(
        "--samples", type=samples, default=cifar.TRAIN, help="the first so many training images (%(default)s)"
    )
    parser.add_argument("--device", type=device, default="cuda", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing or results of another protocol are in the way, which is said.
    """
    start = time.perf_counter()
    options = parse(arguments)
    on, store, console = options.device, Store(options.out), Console()
    torch.backends.cudnn.benchmark = True
    try:
        train, validation = cifar.fit(options.samples)
        fit = moved(train, on), moved(validation, on)
        networks = {name: NETWORKS[name] for name in options.network}
        epochs = {name: options.epochs or stored_epochs(network, store) for name, network in networks.items()}
        new = {name: seconds_an_epoch(networks[name], fit, on) for name, stored in epochs.items() if stored is None}
        left = 60 * options.minutes - (time.perf_counter() - start)
        planned = epochs_of(new, left, len(options.optimizer) * len(options.seeds))
        for name, seconds in new.items():
            say(console, f"{name}: {seconds:.2f} s an epoch, {planned[name]} epochs a run")
        tasks = [long_task(n, epochs[name] or planned[name], options.samples, on) for name, n in networks.items()]
        todo = [(task, CIFAR[row], seed) for seed in options.seeds for task in tasks for row in options.optimizer]
        with progress(console) as bars:
            bar = bars.add_task("", total=sum(task.task.steps for task, _, _ in todo))
            for task, row, seed in todo:
                bars.update(bar, description=f"{task.name}, {row.name}, seed {seed}")
                stored = long.complete(task, row, seed, lambda: fit, store, lambda steps: bars.advance(bar, steps))
                (run,) = [run for run in stored["final"] if run["seed"] == seed]
                line = f"{task.name}, {row.name}, seed {seed}: test {run['test']} % after {task.looks} epochs"
                say(console, f"{line}; {run['looks'][-1]['seconds']:.0f} s")
    except (MissingDataError, OtherProtocolError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
