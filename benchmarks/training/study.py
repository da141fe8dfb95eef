"""Tune optimizers on tasks with the same budget each, then train the chosen settings with fresh seeds.

Results go to one small JSON file for each task, regime and optimizer, after every run; started again, the command
resumes where it was, and with a larger --budget it adds the trials that are missing. Without arguments it runs all
optimizers, on all tasks and in both regimes; their variants, and summary-Newton, on the tasks that are declared.

Fairness rests on four rules. Every optimizer gets the same number of trials. What a trial may try is declared
beforehand and drawn by a quasi-random sequence that no result influences. The trials with the least validation losses
at the end of their runs are run again with another seed, and the one whose worse loss is the least is chosen, so that
neither luck nor the edge of stability decides. Only then is the test split used, with seeds that took no part in this.
"""

import argparse
import functools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from benchmarks.training.console import Job, command_parser, positive, run_jobs
from benchmarks.training.optimizers import TUNED, Row
from benchmarks.training.results import Store, rounded
from benchmarks.training.schedules import REGIMES, Regime
from benchmarks.training.spaces import Choice, Log, Space
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import (
    SEEDS,
    Advance,
    Outcome,
    Run,
    Splits,
    device_name,
    final_run,
    load,
    no_progress,
    train,
)

TUNING_SEED = 0
SECOND_SEED = 10
FINALISTS = 3
SAMPLER_SEED = 0


@dataclass(frozen=True)
class Study:
    """What is tuned on what, and how often.

    Attributes:
        task, row, regime: the task, the optimizer and the family of schedules.
        trials: settings to try; a study of fewer can be extended later, since it has the same ones first.
    """

    task: Task
    row: Row
    regime: Regime
    trials: int

    @property
    def names(self) -> tuple[str, str, str]:
        return self.task.name, self.regime.name, self.row.name

    @property
    def space(self) -> Space:
        return {**self.row.space, **self.regime.space}

    def run(self, setting: Mapping[str, Any]) -> Run:
        return Run(self.names, self.task, self.regime, self.row, setting)

    @property
    def steps(self) -> int:
        """Return the number of steps of all runs."""
        return self.task.steps * (self.trials + min(FINALISTS, self.trials) + len(SEEDS))

    def protocol(self) -> dict[str, Any]:
        """Return all that must be the same for a study to be continued."""
        return {
            "steps": self.task.steps,
            "batch": self.task.batch,
            "evaluations": self.task.evaluations,
            "tuning_seed": TUNING_SEED,
            "second_seed": SECOND_SEED,
            "finalists": FINALISTS,
            "seeds": list(SEEDS),
            "sampler": f"optuna QMCSampler, scrambled Sobol, seed {SAMPLER_SEED}",
            "space": {name: str(range) for name, range in self.space.items()},
        }


def distribution(range: Log | Choice) -> BaseDistribution:
    """Return a range in optuna's terms: a choice by its index, since quasi-random sequences have no categories."""
    if isinstance(range, Choice):
        return IntDistribution(0, len(range.values) - 1)
    return FloatDistribution(range.low, range.high, log=True)


def settings(space: Space, count: int) -> list[dict[str, Any]]:
    """Return the first settings that the tuner draws from a space; each begins a longer list in the same way."""
    with warnings.catch_warnings():
        # the sampler is marked experimental, and says that it draws the first trial at random
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        first = optuna.samplers.RandomSampler(seed=SAMPLER_SEED)
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=SAMPLER_SEED,
            independent_sampler=first,
            warn_independent_sampling=False,
        )
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    drawn = []
    for _ in range(count):
        trial = study.ask({name: distribution(range) for name, range in space.items()})
        values = trial.params
        drawn.append({k: r.values[values[k]] if isinstance(r, Choice) else values[k] for k, r in space.items()})
        study.tell(trial, 0.0)  # the sequence continues from finished trials, whatever their results
    optuna.logging.set_verbosity(before)
    return drawn


def loss_of(trial: Mapping[str, Any]) -> float:
    return math.inf if trial["validation"] is None else trial["validation"]


def finalists(tuning: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of the trials with the least final validation losses, the best first."""
    return [trial["number"] for trial in sorted(tuning, key=loss_of)[:FINALISTS]]


def chosen(tuning: list[dict[str, Any]], second: list[dict[str, Any]]) -> int:
    """Return the number of the finalist whose worse loss of two seeds is the least."""
    return min(second, key=lambda again: max(loss_of(again), loss_of(tuning[again["number"]])))["number"]


def complete(study: Study, store: Store, device: torch.device, advance: Advance = no_progress) -> Mapping[str, Any]:
    """Run what is missing of a study, store each run as soon as it is done, and return the whole result."""
    task, protocol = study.task, study.protocol()
    stored = store.resume(protocol, *study.names)
    result = {
        **dict(zip(("task", "regime", "optimizer"), study.names, strict=True)),
        "protocol": protocol,
        "machine": stored.get("machine") or {"torch": str(torch.__version__), "device": device_name(device)},
        "tuning": list(stored.get("tuning", [])),
        "second": list(stored.get("second", [])),
        "winner": stored.get("winner"),
        "final": list(stored.get("final", [])),
    }
    drawn = settings(study.space, max(study.trials, len(result["tuning"])))
    advance(task.steps * min(study.trials, len(result["tuning"])))

    @functools.cache
    def splits() -> Splits:
        return load(task, device)

    def trained(number: int, seed: int) -> Outcome:
        return train(study.run(drawn[number]), splits(), seed, curve=False, advance=advance)

    for number in range(len(result["tuning"]), study.trials):
        outcome = trained(number, TUNING_SEED)
        trial = {"number": number, "setting": drawn[number], "validation": outcome.validation}
        result["tuning"].append(rounded({**trial, "seconds": outcome.evaluations[-1].seconds}))
        store.write(result, *study.names)

    best = finalists(result["tuning"])
    second = {again["number"]: again for again in result["second"] if again["number"] in best}
    advance(task.steps * len(second))
    for number in best:
        if number not in second:
            outcome = trained(number, SECOND_SEED)
            second[number] = rounded({"number": number, "validation": outcome.validation})
            result["second"] = [second[n] for n in best if n in second]
            store.write(result, *study.names)
    result["second"] = [second[number] for number in best]

    winner = chosen(result["tuning"], result["second"])
    if winner != result["winner"]:
        result |= {"winner": winner, "final": []}
    advance(task.steps * len(result["final"]))
    for seed in SEEDS[len(result["final"]) :]:
        result["final"].append(final_run(study.run(drawn[winner]), splits(), seed, advance))
        store.write(result, *study.names)
    return result


# --- the command ----------------------------------------------------------------------------------------------------

BUDGETS = {"digits": 64, "burgers": 16, "mnist": 16, "fashion": 16, "shakespeare": 8, "cifar10": 16}
"""Trials of each optimizer, by task, where --budget does not say: fewer where a run takes longer."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("training", __doc__, task=TASKS, optimizer=TUNED, regime=REGIMES)
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
