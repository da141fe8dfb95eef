"""Train the chosen settings again, and compare with the stored rows: is each median within the stored spread?

Without arguments it repeats all that is stored for digits and Burgers' equation. Writes nothing.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training.console import device, progress, say, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import TUNED
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.scores import Score, Spread, load, score
from benchmarks.training.study import SEEDS, final_run, settings
from benchmarks.training.tasks import TASKS
from benchmarks.training.trial import moved

QUICK = ("digits", "burgers")


@dataclass(frozen=True)
class Comparison:
    """One number of a row: as stored, and again."""

    name: str
    stored: Spread
    again: float

    @property
    def within(self) -> bool:
        return self.stored.low <= self.again <= self.stored.high

    def __str__(self) -> str:
        spread = f"{self.stored.median:.4g} ({self.stored.low:.4g} … {self.stored.high:.4g})"
        return f"{self.name} {self.again:.4g} for {spread}{'' if self.within else ', OUTSIDE'}"


def again(
    stored: Mapping[str, Any], device: torch.device, advance: Callable[[int], None] = lambda steps: None
) -> list[dict[str, Any]]:
    """Return the records of the final runs of a stored study, made anew.

    Args:
        stored: the study's result.
        device: to train on.
        advance: told the number of steps since it was told before.
    """
    task, regime, row = TASKS[stored["task"]], REGIMES[stored["regime"]], TUNED[stored["optimizer"]]
    setting = settings({**row.space, **regime.space}, stored["winner"] + 1)[-1]
    train, validation = task.fit()
    fit = moved(train, device), moved(validation, device)
    return [final_run(task, fit, row, regime, setting, seed, advance) for seed in SEEDS]


def compared(stored: Mapping[str, Any], finals: list[dict[str, Any]]) -> list[Comparison]:
    """Return the losses and the test metric of a stored study beside those of runs made anew."""
    before, now = (score({"final": records}, 0.0) for records in (stored["final"], finals))
    parts: tuple[tuple[str, Callable[[Score], Spread]], ...] = (
        ("training loss", lambda s: s.train),
        ("validation loss", lambda s: s.validation),
        ("test", lambda s: s.test),
    )
    return [Comparison(name, part(before), part(now).median) for name, part in parts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if a median is outside the stored spread, nothing is stored, or data are missing, which is said.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-repeat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known, chosen in (
        ("--task", TASKS, QUICK),
        ("--optimizer", TUNED, tuple(TUNED)),
        ("--regime", REGIMES, tuple(REGIMES)),
    ):
        shown = f"some of {','.join(known)} ({'all' if len(chosen) == len(known) else ','.join(chosen)})"
        parser.add_argument(option, type=some_of(known), default=list(chosen), help=shown)
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keys = [(t, r, o) for t in options.task for r in options.regime for o in options.optimizer]
    stored = [study for key, study in load(Store(options.out)).items() if key in keys]
    if not stored:
        print(f"nothing is stored for these in {options.out}", file=sys.stderr)
        return 1
    outside = 0
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(TASKS[study["task"]].steps * len(SEEDS) for study in stored))
        for study in stored:
            title = ", ".join(study[name] for name in ("task", "regime", "optimizer"))
            bars.update(bar, description=title)
            try:
                finals = again(study, options.device, lambda steps: bars.advance(bar, steps))
            except MissingDataError as error:
                print(error, file=sys.stderr)
                return 1
            comparisons = compared(study, finals)
            outside += not all(comparison.within for comparison in comparisons)
            say(bars.console, f"{title}: {'; '.join(map(str, comparisons))}")
        say(bars.console, f"{len(stored) - outside} of {len(stored)} rows are repeated within their spread")
    return 1 if outside else 0
