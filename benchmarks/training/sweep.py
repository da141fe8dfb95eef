"""Vary INNA's hyperparameters over a grid, one seed each, to see how sensitive training is to them.

alpha-beta: alpha, beta and lr, cosine. decay: the exponent q of lr (k + 1)^(-q), and lr, at INNA's default alpha and
beta. Resumes where it was interrupted.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import inna_core
from benchmarks.training.console import Job, add_choice, command_parser, run_jobs
from benchmarks.training.optimizers import INNA, Row
from benchmarks.training.results import Store, rounded
from benchmarks.training.schedules import COSINE, POWER, Regime
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import Advance, Run, load, no_progress, train

ROW = Row("inna", "INNA", INNA)
TASK_NAMES = ("digits", "mnist")
SEED = 0


@dataclass(frozen=True)
class Sweep:
    """A grid.

    Attributes:
        name: on the command line and in the results.
        regime: of step sizes.
        axes: the values of each hyperparameter.
        fixed: the hyperparameters that do not vary.
    """

    name: str
    regime: Regime
    axes: Mapping[str, tuple[float, ...]]
    fixed: Mapping[str, float]

    def settings(self) -> Iterator[dict[str, float]]:
        for values in itertools.product(*self.axes.values()):
            yield {**dict(zip(self.axes, values, strict=True)), **self.fixed}


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            *("alpha-beta", COSINE),
            {"lr": (0.1, 0.3, 1.0), "alpha": (0.03, 0.1, 0.3, 1.0, 3.0), "beta": (0.03, 0.1, 0.3, 1.0, 3.0)},
            {},
        ),
        Sweep(
            *("decay", POWER),
            {"q": (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2), "lr": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)},
            {"alpha": inna_core.INNA().alpha, "beta": inna_core.INNA().beta},
        ),
    )
}


def finished(store: Store, task: str, name: str) -> list[dict[str, Any]]:
    """Return the runs of a sweep on a task, or none as long as some are missing."""
    runs = store.read("sweep", task, name).get("runs", [])
    return runs if len(runs) == len(list(SWEEPS[name].settings())) else []


def complete(
    task: Task, sweep: Sweep, store: Store, device: torch.device, advance: Advance = no_progress
) -> Mapping[str, Any]:
    """Run what is missing of a sweep on a task, store each run as soon as it is done, and return the whole result."""
    names, settings = ("sweep", task.name, sweep.name), list(sweep.settings())
    protocol = {
        "steps": task.steps,
        "batch": task.batch,
        "seed": SEED,
        "regime": sweep.regime.name,
        "axes": sweep.axes,
        "fixed": sweep.fixed,
    }
    runs = list(store.resume(protocol, *names).get("runs", []))
    result = {"task": task.name, "sweep": sweep.name, "protocol": rounded(protocol), "runs": runs}
    advance(task.steps * len(runs))
    if len(runs) == len(settings):
        return result
    splits = load(task, device)
    for setting in settings[len(runs) :]:
        outcome = train(Run(names, task, sweep.regime, ROW, setting), splits, SEED, curve=False, advance=advance)
        final = outcome.evaluations[-1].train if outcome.finished else None
        runs.append(rounded({**setting, "train": final, "validation": outcome.validation}))
        store.write(result, *names)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    parser = command_parser("training-sweep", __doc__, sweep=SWEEPS)
    add_choice(parser, "--task", TASKS, TASK_NAMES)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)

    def job(task: Task, sweep: Sweep) -> Job:
        title, steps = f"{task.name}, {sweep.name}", task.steps * len(list(sweep.settings()))

        def work(advance: Advance) -> list[str]:
            return [f"{title}: {len(complete(task, sweep, store, options.device, advance)['runs'])} runs"]

        return Job(title, steps, work)

    return run_jobs([job(TASKS[task], SWEEPS[sweep]) for task in options.task for sweep in options.sweep])
