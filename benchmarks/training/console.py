"""What the commands share: options, a progress bar, and what they do when data or results are in the way."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.training.data import MissingDataError
from benchmarks.training.results import FOLDER, OtherProtocolError

# --- options --------------------------------------------------------------------------------------------------------


def command_parser(
    command: str, description: str | None, on: str = "cpu", **choices: Iterable[str]
) -> argparse.ArgumentParser:
    """Return a parser with --device, whose default is `on`, --out, and an option for each of `choices`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, known in choices.items():
        add_choice(parser, f"--{name}", known)
    parser.add_argument("--device", type=device, default=on, help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    return parser


def add_choice(
    parser: argparse.ArgumentParser, option: str, known: Iterable[str], default: Iterable[str] | None = None
) -> None:
    """Add an option that takes a comma-separated list of known names; by default it has all of them."""
    names = list(known)
    chosen = names if default is None else list(default)
    shown = "all" if chosen == names else ",".join(chosen)
    parser.add_argument(option, type=names_among(names), default=chosen, help=f"some of {','.join(names)} ({shown})")


def names_among(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a parser of a comma-separated list of names."""

    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(map(repr, unknown))} (expected some of {','.join(known)})")
        return chosen

    return parse


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} (expected a whole number of at least 1)")
    return int(text)


def seeds(text: str) -> list[int]:
    """Parse a comma-separated list of whole numbers of at least 1."""
    return [positive(seed.strip()) for seed in text.split(",")]


def device(text: str) -> torch.device:
    """Parse the name of a device that is there."""
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} (expected cpu or cuda)")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("cuda (torch finds no such device here)")
    return torch.device(text)


# --- the main loop --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A part of what a command does.

    Attributes:
        title: shown while it is done.
        steps: its length in the progress bar.
        work: does it; takes a function to call with the number of steps done, and returns lines to print.
    """

    title: str
    steps: int
    work: Callable[[Callable[[int], None]], Iterable[str]]


def run_jobs(jobs: Sequence[Job]) -> int:
    """Do all jobs with a progress bar, but those that lack data or find results of another protocol.

    Returns:
        0; 1 if a job was not done, and the reasons are printed.
    """
    errors: dict[str, None] = {}
    columns: tuple[Any, ...] = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    done = 0
    with Progress(*columns, console=Console(), speed_estimate_period=600) as bars:
        bar = bars.add_task("", total=sum(job.steps for job in jobs))
        for job in jobs:
            bars.update(bar, description=job.title)
            try:
                for line in job.work(lambda steps: bars.advance(bar, steps)):
                    bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
            except (MissingDataError, OtherProtocolError) as error:
                errors[str(error)] = None
            done += job.steps
            bars.update(bar, completed=done)
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0
