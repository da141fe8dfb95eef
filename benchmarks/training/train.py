"""Runs: train a task with one setting of one optimizer, evaluate the model along the way, and store how it went."""

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.training.console import Job, run_jobs
from benchmarks.training.optimizers import Row
from benchmarks.training.results import OtherProtocolError, Store, final_loss, rounded
from benchmarks.training.schedules import Regime
from benchmarks.training.tasks import Split, Task

SEEDS = (1, 2, 3)
"""Of final runs, if nothing else is said."""
PIECE = 100
"""Samples of an evaluation that are computed at a time, so that they stay in a processor's cache."""
OTHER = 256
"""Samples of the loss on other samples, for the optimizers that ask for it."""

Splits = tuple[Split, Split]
"""The training and the validation split."""
Advance = Callable[[int], None]
"""Called with the number of steps done since its last call."""


def no_progress(_: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Run:
    """A task to train with one setting of an optimizer.

    Attributes:
        names: under which the results are stored.
        task, regime, row: what to train, and how.
        setting: what `row.arguments` and `regime.schedule` take, such as the tuned setting of another optimizer.
        seeds: to run.
        record: what else is stored.
        derived: whether the setting follows from other results. If they change, the run is made anew.
    """

    names: tuple[str, ...]
    task: Task
    regime: Regime
    row: Row
    setting: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = SEEDS
    record: Mapping[str, Any] = field(default_factory=dict)
    derived: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The optimizer's own arguments."""
        return self.row.arguments({k: value for k, value in self.setting.items() if k not in self.regime.space})

    def protocol(self) -> dict[str, Any]:
        """Return all that must be the same for seeds to be added to stored ones."""
        task = self.task
        sizes = {"steps": task.steps, "batch": task.batch, "evaluations": task.evaluations}
        return {**sizes, **task.protocol, "setting": rounded(self.arguments)}


@dataclass(frozen=True)
class Evaluation:
    """A run after some steps.

    Attributes:
        step: how many.
        seconds: spent in them, of the processor (on an accelerator: of the clock), without the evaluations.
        train: mean loss of the batches since the last evaluation.
        validation: loss of the validation split.
    """

    step: int
    seconds: float
    train: float
    validation: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run went; `evaluations` end early where the loss was no longer finite."""

    evaluations: list[Evaluation]
    finished: bool
    model: torch.nn.Module

    @property
    def validation(self) -> float | None:
        """The last validation loss, or None if the run diverged."""
        return self.evaluations[-1].validation if self.finished else None


def batches(size: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield batches of indices, each sample once in a pass; what does not fill a batch is left out of the pass."""
    while True:
        yield from torch.randperm(size, generator=generator)[: size - size % batch].split(batch)


def to_device(split: Split, device: torch.device) -> Split:
    return split[0].to(device), split[1].to(device)


def load(task: Task, device: torch.device) -> Splits:
    """Return the training and the validation split of a task on a device."""
    train, validation = task.fit()
    return to_device(train, device), to_device(validation, device)


def train(run: Run, splits: Splits, seed: int, *, curve: bool, advance: Advance = no_progress) -> Outcome:
    """Train once. The same arguments give the same run on the same machine.

    Args:
        run: what to train, and how.
        splits: the task's training and validation split, on the device to train on.
        seed: of the initial weights, the order of the batches, dropout and augmentation.
        curve: compute the validation loss at every evaluation, not only at the end.
        advance: called with the number of steps done.

    Returns:
        The evaluations of the run, and the model that was evaluated.
    """
    task, row, regime = run.task, run.row, run.regime
    (x, y), validation = splits[0], task.validation_subset(splits[1])
    device = x.device
    order = batches(len(x), task.batch, torch.Generator().manual_seed(1000 + seed))
    others = torch.Generator().manual_seed(2000 + seed)

    def other() -> torch.Tensor:
        index = torch.randint(len(x), (OTHER,), generator=others).to(device)
        return task.loss(model, x[index], y[index])

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    evaluations: list[Evaluation] = []
    seconds, finished = 0.0, True
    interval = task.steps // task.evaluations
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = task.model().to(device)
        optimizer, evaluated = row.make(model, other, **run.arguments)
        factor = regime.schedule(task.steps, run.setting)
        peaks = [{name: group[name] for name in row.powers} for group in optimizer.param_groups]
        for last in range(interval, task.steps + 1, interval):
            model.train()
            evaluated.train()  # some optimizers train at another point than the one to evaluate
            start, total = clock(), torch.zeros((), device=device)
            for step in range(last - interval, last):
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group.update({name: value * factor(step) ** row.powers[name] for name, value in peak.items()})
                index = next(order).to(device)
                optimizer.zero_grad()
                loss = task.loss(model, x[index], y[index])
                loss.backward()
                optimizer.step()
                total += loss.detach()
            mean = float(total) / interval  # waits for an accelerator
            seconds += clock() - start
            due = math.isfinite(mean) and (curve or last == task.steps)
            loss = mean_loss(task, evaluated, validation) if due else None
            finished = math.isfinite(mean) and (loss is None or math.isfinite(loss))
            evaluations.append(Evaluation(last, seconds, *((mean, loss) if finished else (math.nan, None))))
            advance(interval)
            if not finished:
                advance(task.steps - last)
                break
    return Outcome(evaluations, finished, evaluated)


@torch.no_grad()
def mean_loss(task: Task, model: torch.nn.Module, split: Split) -> float:
    """Return the mean loss of a model on a split."""
    model.eval()
    pieces = zip(*(tensor.split(PIECE) for tensor in split), strict=True)
    return sum(len(x) * float(task.loss(model, x, y).detach()) for x, y in pieces) / len(split[0])


@torch.no_grad()
def metric(task: Task, model: torch.nn.Module, split: Split) -> float:
    """Return the metric of a model on a split."""
    model.eval()
    return task.metric(model, *split)


def final_run(run: Run, splits: Splits, seed: int, advance: Advance = no_progress) -> dict[str, Any]:
    """Return the record of a run that is evaluated all along, and on the test split at its end; see `train`."""
    task, outcome = run.task, train(run, splits, seed, curve=True, advance=advance)
    model, validation = outcome.model, splits[1]
    names = ("validation", "validation_metric", "test", "test_loss") if task.final_losses else ("test",)
    measured = dict.fromkeys(names, math.nan)
    if outcome.finished:
        test = to_device(task.test(), splits[0][0].device)
        measured["test"] = metric(task, model, test)
        if task.final_losses:
            measured["validation"] = mean_loss(task, model, validation)
            measured["validation_metric"] = metric(task, model, validation)
            measured["test_loss"] = mean_loss(task, model, test)
    evaluations = [asdict(evaluation) for evaluation in outcome.evaluations]
    return rounded({"seed": seed, "finished": outcome.finished, **measured, "evaluations": evaluations})


def complete(run: Run, store: Store, device: torch.device, advance: Advance = no_progress) -> dict[str, Any]:
    """Train with the seeds that are missing, store each run as soon as it is done, and return the whole result.

    Raises:
        OtherProtocolError: if results of another protocol are stored, unless the setting is a derived one.
    """
    task = run.task
    try:
        stored = store.resume(run.protocol(), *run.names)
    except OtherProtocolError:
        if not run.derived:
            raise
        stored = {}
    finals = {final["seed"]: final for final in stored.get("final", [])}
    missing = [seed for seed in run.seeds if seed not in finals]
    advance(task.steps * (len(run.seeds) - len(missing)))
    about = {"task": task.name, "regime": run.regime.name, "optimizer": run.row.name, **run.record}
    if not missing:
        return stored
    splits = load(task, device)
    for seed in missing:
        finals[seed] = final_run(run, splits, seed, advance)
        stored = {**about, "protocol": run.protocol(), "final": [finals[key] for key in sorted(finals)]}
        store.write(stored, *run.names)
    return stored


def train_all(runs: Iterable[Run], options: argparse.Namespace) -> int:
    """Complete runs on the device and in the folder that a command's options name, and return its exit status."""
    store = Store(options.out)

    def job(run: Run) -> Job:
        title = f"{run.task.name}, {run.row.name}"

        def work(advance: Advance) -> Iterable[str]:
            for final in complete(run, store, options.device, advance)["final"]:
                if final["seed"] in run.seeds:
                    losses = f"validation {final_loss(final)}, test {final['test']}"
                    yield f"{title}, seed {final['seed']}: {losses}; {final['evaluations'][-1]['seconds']:.0f} s"

        return Job(title, run.task.steps * len(run.seeds), work)

    return run_jobs([job(run) for run in runs])


def device_name(device: torch.device) -> str:
    """Return what the device is, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)
