"""Tune optimizers on tasks with the same budget each, then train the chosen settings with fresh seeds.

Results go to one small JSON file for each task, regime and optimizer, after every run; started again, the command
resumes where it was, and with a larger --budget it adds the trials that are missing. Without arguments it runs all
optimizers, on all tasks and in both regimes; their variants, and summary-Newton, on the tasks that are declared.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.training.console import Job, add_choice, command_parser, positive, run_jobs
from benchmarks.training.optimizers import TUNED
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.study import Study, complete
from benchmarks.training.tasks import TASKS
from benchmarks.training.train import Advance

BUDGETS = {"digits": 64, "burgers": 16, "mnist": 16, "fashion": 16, "shakespeare": 8, "cifar10": 16}
"""Trials of each optimizer, by task, where --budget does not say: fewer where a run takes longer."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("training", __doc__)
    for option, known in (("--task", TASKS), ("--optimizer", TUNED), ("--regime", REGIMES)):
        add_choice(parser, option, known)
    budgets = ", ".join(f"{name} {trials}" for name, trials in BUDGETS.items())
    parser.add_argument("--budget", type=positive, help=f"trials of each optimizer ({budgets})")
    parser.add_argument("--threads", type=positive, default=1, help="of torch on a CPU (%(default)s)")
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
    """Run the command and return its exit status; see `console.run_jobs`."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)

    def job(study: Study) -> Job:
        title = ", ".join(study.names)

        def work(advance: Advance) -> list[str]:
            start = time.perf_counter()
            result = complete(study, Store(options.out), options.device, advance)
            return [f"{title}: {summary(result)}; {time.perf_counter() - start:.0f} s"]

        return Job(title, study.steps, work)

    return run_jobs([job(study) for study in options.studies])


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(result: Mapping[str, Any]) -> str:
    best = result["tuning"][result["winner"]]
    setting = ", ".join(f"{name} {shown(value)}" for name, value in best["setting"].items())
    tests = ", ".join(shown(final["test"]) for final in result["final"])
    return f"validation {shown(best['validation'])} with {setting}; test {tests}"
