"""Complete stored runs: train with the seeds that are missing."""

import argparse
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.training.console import Job, run_jobs
from benchmarks.training.results import OtherProtocolError, Store, final_loss
from benchmarks.training.train import Advance, Run, final_run, load, no_progress


def complete(run: Run, store: Store, device: torch.device, advance: Advance = no_progress) -> dict[str, Any]:
    """Train with the seeds that are missing, and store each run as soon as it is done.

    Args:
        run: to complete.
        store: where the results are and go.
        device: to train on.
        advance: called with the number of steps done, or found done.

    Returns:
        The whole result, as it is stored.

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
