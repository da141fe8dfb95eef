"""What the stored results amount to: time to target, final losses and test metrics with their spread."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.training.optimizers import OPTIMIZERS, TUNED
from benchmarks.training.results import Store, final_loss, finished
from benchmarks.training.schedules import REGIMES
from benchmarks.training.tasks import TASKS

PEERS = ("momentum", "adamw")
FRACTION = 0.75
"""The target is the validation loss that the better of the tuned peers has reached after this part of its steps."""

FAMILY = ("inna", "innaprop", "innaprop-published", "newton")

Results = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Finished studies by task, regime and optimizer."""
Finals = Sequence[Mapping[str, Any]]
"""The final runs of a row on a task, one for each seed, as they are stored."""


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


@dataclass(frozen=True)
class Curve:
    """An average validation loss along runs."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def last(self) -> float:
        return self.losses[-1]

    def steps_to(self, aim: float) -> float:
        """Return the first step with a loss of at most `aim`, interpolated; infinite if there is none."""
        pairs = list(zip(self.steps, self.losses, strict=True))
        for (a, x), (b, y) in zip([(0, math.inf), *pairs], pairs, strict=False):
            if y <= aim:
                return b if math.isinf(x) else a + (b - a) * (x - aim) / (x - y)
        return math.inf


def curve(finals: Finals, average: Callable[[list[float]], float] = statistics.mean) -> Curve:
    """Return the average of the seeds at each evaluation; the loss of a run that has diverged is infinite."""
    longest = max((final["evaluations"] for final in finals), key=len)
    losses = []
    for i in range(len(longest)):
        found = [final["evaluations"][i]["validation"] if i < len(final["evaluations"]) else None for final in finals]
        losses.append(average([math.inf if loss is None else loss for loss in found]))
    return Curve(tuple(evaluation["step"] for evaluation in longest), tuple(losses))


def studies(store: Store) -> Results:
    """Return all finished studies."""
    found = {(t, regime, row): store.read(t, regime, row) for t in TASKS for regime in REGIMES for row in TUNED}
    return {key: study for key, study in found.items() if finished(study)}


def tasks_of(results: Results, regime: str) -> list[str]:
    """Return the tasks that the two main peers have finished in a regime, in order: those that have a target."""
    return [task for task in TASKS if all((task, regime, peer) in results for peer in PEERS)]


def rows_of(results: Results, regime: str) -> list[str]:
    """Return the optimizers that have finished some task in a regime, in order."""
    return [row for row in OPTIMIZERS if any((task, regime, row) in results for task in TASKS)]


def spread(values: Sequence[float | None]) -> Spread:
    numbers = [math.inf if value is None else value for value in values]
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def reached_by(results: Results, task: str, regime: str, peer: str) -> float:
    """Return the validation loss that a peer has reached after three quarters of its steps, the median of its seeds."""

    def least(final: Mapping[str, Any]) -> float:
        until = [e["validation"] for e in final["evaluations"] if e["step"] <= FRACTION * TASKS[task].steps]
        return min((loss for loss in until if loss is not None), default=math.inf)

    return statistics.median(map(least, results[task, regime, peer]["final"]))


def target(results: Results, task: str, regime: str) -> float:
    """Return the validation loss to reach on a task: that of the better of the two main peers."""
    return min(reached_by(results, task, regime, peer) for peer in PEERS)


def first_at(final: Mapping[str, Any], aim: float) -> Mapping[str, Any] | None:
    """Return the first evaluation of a run with a validation loss of at most `aim`."""
    losses = ((evaluation, evaluation["validation"]) for evaluation in final["evaluations"])
    return next((evaluation for evaluation, loss in losses if loss is not None and loss <= aim), None)


def score(study: Mapping[str, Any], aim: float) -> Score:
    """Return what a study's seeds reached."""
    finals = study["final"]
    first = [first_at(final, aim) for final in finals]
    return Score(
        steps=spread([evaluation["step"] if evaluation else None for evaluation in first]).median,
        seconds=spread([evaluation["seconds"] if evaluation else None for evaluation in first]).median,
        reached=sum(evaluation is not None for evaluation in first),
        seeds=len(finals),
        train=spread([final["evaluations"][-1]["train"] if final["finished"] else None for final in finals]),
        validation=spread([final_loss(final) for final in finals]),
        test=spread([final["test"] for final in finals]),
    )


def scores(results: Results, task: str, regime: str, rows: Iterable[str] = tuple(OPTIMIZERS)) -> dict[str, Score]:
    """Return the scores of those of some optimizers that have finished a task."""
    aim = target(results, task, regime)
    return {row: score(results[task, regime, row], aim) for row in rows if (task, regime, row) in results}


def trials(results: Results, task: str, regime: str) -> int:
    """Return how many trials each optimizer had on a task."""
    return len(results[task, regime, PEERS[0]]["tuning"])


def trials_near_best(results: Results, task: str, regime: str, row: str, factor: float) -> tuple[int, int]:
    """Return how many trials came within a factor of the best of all optimizers, and how many diverged."""
    tuned = [results[task, regime, r] for r in OPTIMIZERS if (task, regime, r) in results]
    losses = [trial["validation"] for study in tuned for trial in study["tuning"]]
    best = min(loss for loss in losses if loss is not None)
    own = [trial["validation"] for trial in results[task, regime, row]["tuning"]]
    return sum(loss is not None and loss <= factor * best for loss in own), sum(loss is None for loss in own)
