"""One run: train a task with one setting of one optimizer, and look at it on the way."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.training.tasks import Split, Task

if TYPE_CHECKING:  # their search spaces are optuna's, which the long runs do without
    from benchmarks.training.optimizers import Row
    from benchmarks.training.schedules import Regime

LOOKS = 25
"""How often a run is looked at: whether its loss is finite and, if asked for, at its validation loss."""

PIECE = 100
OTHER = 256
"""Samples of the loss on other samples, for the optimizers that ask for it."""


@dataclass(frozen=True)
class Look:
    """A run after some steps.

    Attributes:
        step: how many.
        seconds: spent in them, of the processor (on an accelerator: of the clock); looking not counted.
        train: mean loss of the batches since the look before.
        validation: loss of the validation split.
    """

    step: int
    seconds: float
    train: float
    validation: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run went; `looks` ends early where the loss was no longer finite."""

    looks: list[Look]
    finished: bool
    model: torch.nn.Module

    @property
    def validation(self) -> float | None:
        """The last validation loss, or None if the run diverged."""
        return self.looks[-1].validation if self.finished else None

    def record(self) -> dict[str, Any]:
        """Return the looks as they are stored."""
        return {"finished": self.finished, "looks": [asdict(look) for look in self.looks]}


def batches(size: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield batches of indices, each sample once in a pass; what does not fill a batch is left out of the pass."""
    while True:
        yield from torch.randperm(size, generator=generator)[: size - size % batch].split(batch)


def moved(split: Split, device: torch.device) -> Split:
    return split[0].to(device), split[1].to(device)


def run(
    task: Task,
    fit: tuple[Split, Split],
    row: "Row",
    regime: "Regime",
    drawn: Mapping[str, Any],
    seed: int,
    *,
    curve: bool,
    advance: Callable[[int], None] = lambda steps: None,
) -> Outcome:
    """Train once. The same arguments give the same run on the same machine.

    Args:
        task: what to train.
        fit: its training and validation split, on the device to train on.
        row: the optimizer.
        regime: of step sizes.
        drawn: the setting, as the tuner has drawn it.
        seed: of the initial weights and the order of the batches.
        curve: compute the validation loss at every look, not only at the end.
        advance: told the number of steps since it was told before.

    Returns:
        The looks at the run, and the model that was looked at.
    """
    (x, y), validation = fit
    device = x.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.model().to(device)
    order = batches(len(x), task.batch, torch.Generator().manual_seed(1000 + seed))
    others = torch.Generator().manual_seed(2000 + seed)

    def other() -> torch.Tensor:
        index = torch.randint(len(x), (OTHER,), generator=others).to(device)
        return task.loss(model, x[index], y[index])

    own = {name: value for name, value in drawn.items() if name not in regime.space}
    optimizer, seen = row.make(model, other, **row.arguments(own))
    factor, (group,) = regime.schedule(task.steps, drawn), optimizer.param_groups
    peak = {name: group[name] for name in row.powers}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    looks: list[Look] = []
    seconds, finished = 0.0, True
    every = task.steps // LOOKS
    for last in range(every, task.steps + 1, every):
        model.train()
        seen.train()  # some optimizers train at another point than the one to look at
        start, total = clock(), torch.zeros((), device=device)
        for step in range(last - every, last):
            group.update({name: value * factor(step) ** row.powers[name] for name, value in peak.items()})
            index = next(order).to(device)
            optimizer.zero_grad()
            loss = task.loss(model, x[index], y[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        train = float(total) / every  # waits for an accelerator
        seconds += clock() - start
        advance(every)
        finished = train - train == 0
        due = finished and (curve or last == task.steps)
        loss = evaluate(task, seen, validation) if due else None
        finished = finished and (loss is None or loss - loss == 0)
        looks.append(Look(last, seconds, train, loss) if finished else Look(last, seconds, float("nan"), None))
        if not finished:
            advance(task.steps - last)
            break
    return Outcome(looks, finished, seen)


@torch.no_grad()
def evaluate(task: Task, model: torch.nn.Module, split: Split) -> float:
    """Return the mean loss of a model on a split, in pieces that stay in a processor's cache."""
    model.eval()
    pieces = zip(*(tensor.split(PIECE) for tensor in split), strict=True)
    return sum(len(x) * float(task.loss(model, x, y).detach()) for x, y in pieces) / len(split[0])


@torch.no_grad()
def measure(task: Task, model: torch.nn.Module, split: Split) -> float:
    """Return the metric of a model on a split."""
    model.eval()
    return task.metric(model, *split)


def described(device: torch.device) -> str:
    """Return what the device is, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)
