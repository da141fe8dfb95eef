"""What the settings carried over amount to: how much sooner they reach the peer's own final loss, and where they end.

The loss of a row is the mean over its seeds; steps are interpolated between looks.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.training import long, transfer
from benchmarks.training.results import Store
from benchmarks.training.tasks import TASKS

GPT_TASK = "gpt-2000"
LONG_NAMES = {
    **{name: name for name in ("adamw", "adamw-less", "adamw-more", "nadam", "nadam-constant")},
    "innaprop-lead-1": "innaprop-1",
    "innaprop-lead-m": "innaprop-1.9",
    "innaprop-lead-3": "innaprop-3",
    "innaprop-lead-5": "innaprop-5",
    "innaprop": "innaprop-converted",
}
"""The rows of the short tasks, as the long ones name them."""

LEADS = tuple(transfer.lead_name("innaprop", lead) for lead in transfer.LEADS)

Finals = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """The mean validation loss of some seeds along a run; infinite from where one of them has diverged."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def last(self) -> float:
        return self.losses[-1]

    def steps_to(self, aim: float) -> float:
        """Return the first step with a loss of at most `aim`, infinite if there is none."""
        pairs = list(zip(self.steps, self.losses, strict=True))
        for (a, x), (b, y) in zip([(0, math.inf), *pairs], pairs, strict=False):
            if y <= aim:
                return b if math.isinf(x) else a + (b - a) * (x - aim) / (x - y)
        return math.inf


def curve(finals: Finals) -> Curve:
    longest = max((final["looks"] for final in finals), key=len)
    losses = []
    for i in range(len(longest)):
        seen = [final["looks"][i]["validation"] if i < len(final["looks"]) else None for final in finals]
        losses.append(statistics.mean(math.inf if loss is None else loss for loss in seen))
    return Curve(tuple(look["step"] for look in longest), tuple(losses))


@dataclass(frozen=True)
class Ends:
    """Mean and standard deviation of some seeds; the mean infinite where one diverged, the deviation then NaN."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Ends":
        finite = [value for value in values if value is not None]
        if len(finite) < len(values):
            return cls(math.inf, math.nan)
        return cls(statistics.mean(finite), statistics.stdev(finite) if len(finite) > 1 else math.nan)


@dataclass(frozen=True)
class Comparison:
    """A row beside the peer whose setting it took, on the same seeds.

    Attributes:
        seeds: how many.
        steps: to the peer's own final loss.
        sooner: the part of the peer's steps to that loss that is saved; minus infinity where it is not reached, NaN
            where the peer has diverged.
        validation, test: at the end.
        peer: the peer's validation loss at the end.
    """

    seeds: int
    steps: float
    sooner: float
    validation: Ends
    test: Ends
    peer: Ends

    @property
    def behind(self) -> bool:
        """Whether it ends above the peer by more than the standard deviation of the peer's seeds.

        Its own deviation does not count, lest a row be excused by seeds that diverge.
        """
        spread = self.peer.deviation if math.isfinite(self.peer.deviation) else 0.0
        return self.validation.mean > self.peer.mean + spread


def last_loss(final: Mapping[str, Any]) -> float | None:
    """Return the validation loss at the end, on all of the split; looks at long runs may take a part of it."""
    return final.get("validation", final["looks"][-1]["validation"]) if final["finished"] else None


def compare(finals: Finals, peers: Finals) -> Comparison:
    """Return how a row does against a peer; they must have the same seeds."""
    peer, own = curve(peers), curve(finals)
    steps = own.steps_to(peer.last)
    return Comparison(
        seeds=len(finals),
        steps=steps,
        sooner=1 - steps / peer.steps_to(peer.last) if math.isfinite(peer.last) else math.nan,
        validation=Ends.of([last_loss(final) for final in finals]),
        test=Ends.of([final["test"] for final in finals]),
        peer=Ends.of([last_loss(final) for final in peers]),
    )


def finals_of(store: Store, task: str, name: str) -> list[Mapping[str, Any]]:
    """Return the stored runs of a row on a short task or a long one, by seed."""
    if task in TASKS:
        return store.read(*transfer.names(task, "cosine", transfer.BY_NAME[name])).get("final", [])
    return store.read(*long.names(task, name)).get("final", [])


def compared(store: Store, task: str, name: str, peer: str, seeds: Sequence[int] | None = None) -> Comparison | None:
    """Return a row beside a peer on the seeds that both have, or on those of `seeds` among them; None without any."""
    pairs = [
        {final["seed"]: final for final in finals_of(store, task, row) if seeds is None or final["seed"] in seeds}
        for row in (name, peer)
    ]
    common = sorted(pairs[0].keys() & pairs[1].keys())
    return compare(*([pair[seed] for seed in common] for pair in pairs)) if common else None


def seven(store: Store, name: str, seeds: Sequence[int] | None = None) -> dict[str, Comparison]:
    """Return a row beside AdamW on the six short tasks and the GPT of nanoGPT, as far as there are results."""
    found = {task: compared(store, task, name, "adamw", seeds) for task in TASKS}
    if name in LONG_NAMES:
        found[GPT_TASK] = compared(store, GPT_TASK, LONG_NAMES[name], "adamw", seeds)
    return {task: comparison for task, comparison in found.items() if comparison is not None}


@dataclass(frozen=True)
class Verdict:
    """A row over several tasks.

    Attributes:
        tasks: how many.
        ahead: on how many it is sooner.
        median: of `sooner`.
        behind: on which it ends behind by more than the spread of seeds.
    """

    tasks: int
    ahead: int
    median: float
    behind: tuple[str, ...]


def verdict(found: Mapping[str, Comparison]) -> Verdict:
    return Verdict(
        tasks=len(found),
        ahead=sum(comparison.sooner > 0 for comparison in found.values()),
        median=statistics.median(comparison.sooner for comparison in found.values()),
        behind=tuple(task for task, comparison in found.items() if comparison.behind),
    )


def chosen_lead(store: Store) -> str:
    """Return the row of the lead with the greatest median on the choosing seeds of the short tasks."""
    medians = {}
    for name in LEADS:
        found = {task: c for task, c in seven(store, name, transfer.CHOOSING).items() if task in TASKS}
        medians[name] = verdict(found).median
    return max(medians, key=lambda name: medians[name])
