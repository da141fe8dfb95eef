"""Tune optimizers on tasks with the same budget each, then train the chosen settings with fresh seeds.

Results go to one small JSON file for each task, regime and optimizer, after every run; started again, the command goes
on where it was, and with a larger --budget it adds the trials that are missing. Without arguments it runs all
optimizers, on all tasks and in both regimes; their variants, and summary-Newton, on the tasks that are declared.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training.console import device, positive, progress, say, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import TUNED
from benchmarks.training.results import FOLDER, OtherProtocolError, Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import Study, complete
from benchmarks.training.tasks import TASKS

BUDGETS = {"digits": 64, "burgers": 16, "mnist": 16, "fashion": 16, "shakespeare": 8, "cifar10": 16}
"""Trials of each optimizer, by task, where --budget does not say: fewer where a run takes longer."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, names in (("--task", TASKS), ("--optimizer", TUNED), ("--regime", REGIMES)):
        parser.add_argument(option, type=some_of(names), default=list(names), help=f"some of {','.join(names)} (all)")
    budgets = ", ".join(f"{name} {trials}" for name, trials in BUDGETS.items())
    parser.add_argument("--budget", type=positive, help=f"trials of each optimizer ({budgets})")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="of torch on a CPU (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    options.studies = [
        Study(TASKS[task], TUNED[row], REGIMES[regime], options.budget or BUDGETS[task])
        for task in options.task
        for regime in options.regime
        for row in options.optimizer
        if task in TUNED[row].tasks and regime in TUNED[row].regimes
    ]
    if not options.studies:
        parser.error(
            f"argument --optimizer: {','.join(options.optimizer)} (expected some that are run on the task "
            f"{','.join(options.task)} in the regime {','.join(options.regime)})"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing or results of another protocol are in the way, which is said for each.
    """
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    console, store = Console(), Store(options.out)
    studies: list[Study] = options.studies
    failed: dict[str, None] = {}
    with progress(console) as bars:
        bar = bars.add_task("", total=sum(study.steps for study in studies))
        for study in studies:
            bars.update(bar, description=", ".join(study.names))
            start = time.perf_counter()
            try:
                result = complete(study, store, options.device, lambda steps: bars.advance(bar, steps))
            except (MissingDataError, OtherProtocolError) as error:
                failed[str(error)] = None
                bars.advance(bar, study.steps)
                continue
            seconds = time.perf_counter() - start
            say(bars.console, f"{', '.join(study.names)}: {summary(result)}; {seconds:.0f} s")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(result: Mapping[str, Any]) -> str:
    best = result["tuning"][result["winner"]]
    setting = ", ".join(f"{name} {shown(value)}" for name, value in best["setting"].items())
    tests = ", ".join(shown(final["test"]) for final in result["final"])
    return f"validation {best['validation']:.4g} with {setting}; test {tests}"
