"""What the commands share on the screen and the command line."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def some_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a parser of a comma-separated list of names."""
    known = list(names)

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


def device(text: str) -> torch.device:
    """Parse the name of a device that is there."""
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} (expected cpu or cuda)")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("cuda (torch finds no such device here)")
    return torch.device(text)


def progress(console: Console) -> Progress:
    """Return a progress bar with the time left."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, speed_estimate_period=600)


def say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
