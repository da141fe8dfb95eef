"""Tune one optimizer on one task with a fixed number of trials, then run the chosen setting with fresh seeds.

Fairness rests on four rules: every optimizer gets the same number of trials; what a trial may try is declared
beforehand and drawn by a quasi-random sequence that no result influences; the trial with the least validation loss at
the end of its run is chosen; and only then, with seeds that took no part in the choice, is the test split looked at.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import torch

from benchmarks.training.optimizers import Row
from benchmarks.training.results import Store, rounded
from benchmarks.training.schedules import Regime
from benchmarks.training.spaces import Space
from benchmarks.training.tasks import Split, Task
from benchmarks.training.trial import LOOKS, measure, moved, run

SEEDS = (1, 2, 3)
TUNING_SEED = 0
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

    @property
    def steps(self) -> int:
        """Return the number of steps of all runs."""
        return self.task.steps * (self.trials + len(SEEDS))

    def protocol(self) -> dict[str, Any]:
        """Return all that must be the same when a study is gone on with."""
        return {
            "steps": self.task.steps,
            "batch": self.task.batch,
            "looks": LOOKS,
            "tuning_seed": TUNING_SEED,
            "seeds": list(SEEDS),
            "sampler": f"optuna QMCSampler, scrambled Sobol, seed {SAMPLER_SEED}",
            "space": {name: str(range) for name, range in self.space.items()},
        }


def settings(space: Space, count: int) -> list[dict[str, Any]]:
    """Return the first settings that the tuner draws from a space; each begins a longer list in the same way.

    Args:
        space: to draw from.
        count: how many.
    """
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
        trial = study.ask({name: range.distribution() for name, range in space.items()})
        drawn.append({name: range.value(trial.params[name]) for name, range in space.items()})
        study.tell(trial, 0.0)  # the sequence goes on from finished trials, and looks at no result
    optuna.logging.set_verbosity(before)
    return drawn


def chosen(tuning: list[dict[str, Any]]) -> int | None:
    """Return the number of the trial with the least final validation loss, or None if all diverged."""
    finished = [trial for trial in tuning if trial["validation"] is not None]
    return min(finished, key=lambda trial: trial["validation"])["number"] if finished else None


def complete(
    study: Study,
    store: Store,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> Mapping[str, Any]:
    """Run what is missing of a study, and store each run as soon as it is done.

    Args:
        study: to run.
        store: where its results are and go.
        device: to train on.
        advance: told the number of steps that have been made, or found done, since it was told before.

    Returns:
        The whole result, as it is stored.
    """
    task, protocol = study.task, study.protocol()
    stored = store.resume(protocol, *study.names)
    result = {
        **dict(zip(("task", "regime", "optimizer"), study.names, strict=True)),
        "protocol": protocol,
        "machine": stored.get("machine") or {"torch": str(torch.__version__), "device": described(device)},
        "tuning": list(stored.get("tuning", [])),
        "winner": stored.get("winner"),
        "final": list(stored.get("final", [])),
    }
    drawn = settings(study.space, study.trials)
    todo = study.trials - len(result["tuning"])
    advance(task.steps * (study.trials - max(todo, 0)))
    fit: tuple[Split, Split] | None = None

    def data() -> tuple[Split, Split]:
        nonlocal fit
        if fit is None:
            train, validation = task.fit()
            fit = moved(train, device), moved(validation, device)
        return fit

    for number in range(len(result["tuning"]), study.trials):
        setting = drawn[number]
        outcome = run(task, data(), study.row, study.regime, setting, TUNING_SEED, curve=False, advance=advance)
        last = outcome.looks[-1]
        trial = {"number": number, "setting": setting, "validation": outcome.validation, "seconds": last.seconds}
        result["tuning"].append(rounded(trial))
        store.write(result, *study.names)

    winner = chosen(result["tuning"])
    if winner != result["winner"]:
        result |= {"winner": winner, "final": []}
    if winner is None:
        advance(task.steps * len(SEEDS))
        store.write(result, *study.names)
        return result
    advance(task.steps * len(result["final"]))
    for seed in SEEDS[len(result["final"]) :]:
        setting = drawn[winner]
        outcome = run(task, data(), study.row, study.regime, setting, seed, curve=True, advance=advance)
        metric = measure(task, outcome.model, moved(task.test(), device)) if outcome.finished else math.nan
        result["final"].append(rounded({"seed": seed, "test": metric, **outcome.record()}))
        store.write(result, *study.names)
    return result


def described(device: torch.device) -> str:
    """Return what the device is, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)
