"""What the stored results amount to: time to target, final losses and test metrics with their spread."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.training.optimizers import OPTIMIZERS, TUNED
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.tasks import TASKS

PEERS = ("momentum", "adamw")
FRACTION = 0.75
"""The target is the validation loss that the better of the tuned peers has reached after this part of its steps."""

FAMILY = ("inna", "innaprop", "innaprop-published", "newton")

Results = Mapping[tuple[str, str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the seeds; infinite or NaN where a run diverged."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """What one tuned optimizer reached on one task.

    Attributes:
        steps: median number of steps to the target; infinite if most seeds did not reach it.
        seconds: the same in time.
        reached: how many seeds did.
        seeds: how many there are.
        train, validation: losses at the end.
        test: the metric.
    """

    steps: float
    seconds: float
    reached: int
    seeds: int
    train: Spread
    validation: Spread
    test: Spread


def load(store: Store) -> Results:
    """Return all finished studies by task, regime and optimizer."""
    found = {}
    for task in TASKS:
        for regime in REGIMES:
            for row in TUNED:
                stored = store.read(task, regime, row)
                if stored and len(stored["final"]) == len(stored["protocol"]["seeds"]):
                    found[task, regime, row] = stored
    return found


def tasks_of(results: Results, regime: str) -> list[str]:
    """Return the tasks that the two main peers have finished in a regime, in order: those that have a target."""
    return [task for task in TASKS if all((task, regime, peer) in results for peer in PEERS)]


def rows_of(results: Results, regime: str) -> list[str]:
    """Return the optimizers that have finished some task in a regime, in order."""
    return [row for row in OPTIMIZERS if any((task, regime, row) in results for task in TASKS)]


def spread(values: Sequence[float | None]) -> Spread:
    numbers = [math.inf if value is None else value for value in values]
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def best_until(final: Mapping[str, Any], steps: float) -> float:
    """Return the least validation loss of a run up to a step."""
    seen = [look["validation"] for look in final["looks"] if look["step"] <= steps and look["validation"] is not None]
    return min(seen, default=math.inf)


def reached_by(results: Results, task: str, regime: str, peer: str) -> float:
    """Return the validation loss that a peer has reached after three quarters of its steps, the median of its seeds."""
    until = FRACTION * TASKS[task].steps
    return statistics.median(best_until(final, until) for final in results[task, regime, peer]["final"])


def target(results: Results, task: str, regime: str) -> float:
    """Return the validation loss to reach on a task: that of the better of the two main peers."""
    return min(reached_by(results, task, regime, peer) for peer in PEERS)


def first_look(final: Mapping[str, Any], aim: float) -> Mapping[str, Any] | None:
    """Return the first look at which a run's validation loss is at the target."""
    losses = ((look, look["validation"]) for look in final["looks"])
    return next((look for look, loss in losses if loss is not None and loss <= aim), None)


def score(study: Mapping[str, Any], aim: float) -> Score:
    """Return what a study's seeds reached."""
    finals = study["final"]
    looks = [first_look(final, aim) for final in finals]
    last = [final["looks"][-1] if final["finished"] else {"train": None, "validation": None} for final in finals]
    return Score(
        steps=spread([look["step"] if look else None for look in looks]).median,
        seconds=spread([look["seconds"] if look else None for look in looks]).median,
        reached=sum(look is not None for look in looks),
        seeds=len(finals),
        train=spread([look["train"] for look in last]),
        validation=spread([look["validation"] for look in last]),
        test=spread([final["test"] for final in finals]),
    )


def scores(results: Results, task: str, regime: str, rows: Iterable[str] = tuple(OPTIMIZERS)) -> dict[str, Score]:
    """Return the scores of those of some optimizers that have finished a task."""
    aim = target(results, task, regime)
    found = {row: results.get((task, regime, row)) for row in rows}
    return {row: score(study, aim) for row, study in found.items() if study is not None}


def trials(results: Results, task: str, regime: str) -> int:
    """Return how many trials each optimizer had on a task."""
    return len(results[task, regime, PEERS[0]]["tuning"])


def trials_near_best(results: Results, task: str, regime: str, row: str, factor: float) -> tuple[int, int]:
    """Return how many trials came within a factor of the best of all optimizers, and how many diverged."""
    studies = [results[task, regime, r] for r in OPTIMIZERS if (task, regime, r) in results]
    losses = [trial["validation"] for study in studies for trial in study["tuning"]]
    best = min(loss for loss in losses if loss is not None)
    own = [trial["validation"] for trial in results[task, regime, row]["tuning"]]
    return sum(loss is not None and loss <= factor * best for loss in own), sum(loss is None for loss in own)
