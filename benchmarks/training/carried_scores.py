"""What the settings carried over amount to: how much sooner they reach the peer's own final loss, and where they end.

The loss of a row is the mean over its seeds; steps are interpolated between evaluations.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.training import gpu, long, transfer
from benchmarks.training.long import LONG
from benchmarks.training.results import Store, final_loss
from benchmarks.training.scores import Curve, Finals, curve
from benchmarks.training.tasks import TASKS

GPT_TASK = "gpt-2000"
LONG_NAMES = {
    "innaprop-lead-1": "innaprop-1",
    "innaprop-lead-m": "innaprop-1.9",
    "innaprop-lead-3": "innaprop-3",
    "innaprop-lead-5": "innaprop-5",
    "innaprop": "innaprop-converted",
}
"""The rows of the short tasks that have other names on the long ones."""

LEADS = tuple(transfer.lead_name("innaprop", lead) for lead in transfer.LEADS)

TITLES = {
    **{name: task.title for name, task in (*TASKS.items(), *LONG.items())},
    **{network.task: f"{network.title}, on a GPU" for network in gpu.NETWORKS.values()},
}
"""By the name of a task in the results."""


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
        by_seed: the same of each seed.
        validation, test: at the end.
        peer: the peer's validation loss at the end.
    """

    seeds: int
    steps: float
    sooner: float
    by_seed: tuple[float, ...]
    validation: Ends
    test: Ends
    peer: Ends

    @property
    def behind(self) -> bool:
        """Whether it ends above the peer by more than the standard deviation of the peer's seeds.

        Its own deviation does not count: seeds that diverge would excuse it.
        """
        spread = self.peer.deviation if math.isfinite(self.peer.deviation) else 0.0
        return self.validation.mean > self.peer.mean + spread


def sooner(own: Curve, peer: Curve) -> float:
    """Return the part of the peer's steps to its own final loss that is saved; see `Comparison.sooner`."""
    return 1 - own.steps_to(peer.last) / peer.steps_to(peer.last) if math.isfinite(peer.last) else math.nan


def compare(finals: Finals, peers: Finals) -> Comparison:
    """Return how a row does against a peer; they must have the same seeds."""
    own, peer = curve(finals), curve(peers)
    return Comparison(
        seeds=len(finals),
        steps=own.steps_to(peer.last),
        sooner=sooner(own, peer),
        by_seed=tuple(sooner(curve([one]), curve([other])) for one, other in zip(finals, peers, strict=True)),
        validation=Ends.of([final_loss(final) for final in finals]),
        test=Ends.of([final["test"] for final in finals]),
        peer=Ends.of([final_loss(final) for final in peers]),
    )


def finals_of(store: Store, task: str, name: str) -> Finals:
    """Return the stored runs of a row on a short task or a long one, by seed."""
    names = transfer.names(task, name) if task in TASKS else long.names(task, LONG_NAMES.get(name, name))
    return store.read(*names).get("final", [])


def compared(store: Store, task: str, name: str, peer: str, seeds: Sequence[int] | None = None) -> Comparison | None:
    """Return a row beside a peer on the seeds that both have, or on those of `seeds` among them; None without any."""
    own, others = (
        {final["seed"]: final for final in finals_of(store, task, row) if seeds is None or final["seed"] in seeds}
        for row in (name, peer)
    )
    common = sorted(own.keys() & others.keys())
    return compare([own[seed] for seed in common], [others[seed] for seed in common]) if common else None


def beside_adamw(store: Store, name: str, seeds: Sequence[int] | None = None) -> dict[str, Comparison]:
    """Return a row beside AdamW on the six short tasks and the GPT of nanoGPT, as far as there are results."""
    found = {task: compared(store, task, name, "adamw", seeds) for task in (*TASKS, GPT_TASK)}
    return {task: comparison for task, comparison in found.items() if comparison is not None}


def on_short_tasks(store: Store, name: str, seeds: Sequence[int]) -> "Verdict":
    """Return a row's verdict on the short tasks with some seeds."""
    return verdict({task: found for task, found in beside_adamw(store, name, seeds).items() if task in TASKS})


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
    return max(LEADS, key=lambda name: on_short_tasks(store, name, transfer.CHOOSING).median)
