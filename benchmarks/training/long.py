"""Train long tasks with published settings; nothing is tuned.

Results go to one JSON file for each task and row, after every run; started again, the command goes on where it was. All
rows are run with the first seed before any is run with the second.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training.console import device, positive, progress, say, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.long_rows import ON_REQUEST, ROWS, LongRow
from benchmarks.training.long_tasks import LONG, LongTask
from benchmarks.training.results import FOLDER, OtherProtocolError, Store
from benchmarks.training.tasks import Split
from benchmarks.training.trial import Look, batches, described, evaluate, measure, moved

Fit = tuple[Split, Split]


def factor(step: int, steps: int, warmup: int, floor: float) -> float:
    """Return the part of the peak lr at a step: a linear warm-up, then half a cosine down to a floor."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def param_groups(long: LongTask, model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return a model's parameters in one group with decay and, if there are others, one without."""
    parts = {decays: [p for p in model.parameters() if long.decays(p) is decays] for decays in (True, False)}
    return [
        {"params": params, "weight_decay": weight_decay if decays else 0.0}
        for decays, params in parts.items()
        if params
    ]


def train(
    long: LongTask, fit: Fit, row: LongRow, seed: int, advance: Callable[[int], None]
) -> tuple[list[Look], torch.nn.Module]:
    """Return the looks at one run, which end early where it diverges, and the trained model."""
    (x, y), validation = fit
    task, look_at, device = long.task, long.look_at(validation), x.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    looks: list[Look] = []
    seconds, every = 0.0, task.steps // long.looks
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = task.model().to(device)
        setting = dict(row.setting)
        optimizer = row.optimizer(param_groups(long, model, setting.pop("weight_decay", 0.0)), **setting)
        order = batches(len(x), task.batch, torch.Generator().manual_seed(1000 + seed))
        for last in range(every, task.steps + 1, every):
            model.train()
            start, total = clock(), torch.zeros((), device=device)
            for step in range(last - every, last):
                for group in optimizer.param_groups:
                    group["lr"] = row.setting["lr"] * factor(step, task.steps, long.warmup, long.floor)
                index = next(order).to(device)
                optimizer.zero_grad()
                loss = task.loss(model, x[index], y[index])
                loss.backward()
                if long.clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), long.clip)
                optimizer.step()
                total += loss.detach()
            mean = float(total) / every  # waits for an accelerator
            seconds += clock() - start
            looks.append(Look(last, seconds, mean, evaluate(task, model, look_at)))
            advance(every)
            if not math.isfinite(mean):
                advance(task.steps - last)
                break
    return looks, model


def record(long: LongTask, fit: Fit, row: LongRow, seed: int, advance: Callable[[int], None]) -> dict[str, Any]:
    """Return what is stored of one run: the whole validation split and the test split are used at its end only."""
    looks, model = train(long, fit, row, seed, advance)
    finished = looks[-1].step == long.task.steps and math.isfinite(looks[-1].train)
    ends = {"validation": math.nan, "validation_metric": math.nan, "test": math.nan, "test_loss": math.nan}
    if finished:
        test = moved(long.task.test(), fit[0][0].device)
        ends = {
            "validation": evaluate(long.task, model, fit[1]),
            "validation_metric": measure(long.task, model, fit[1]),
            "test": measure(long.task, model, test),
            "test_loss": evaluate(long.task, model, test),
        }
    return {"seed": seed, "finished": finished, **ends, "looks": [asdict(look) for look in looks]}


def on_device(long: LongTask, device: torch.device) -> LongTask:
    """Return a task under the name that its results have on a device: those of a GPU stand apart."""
    if device.type == "cpu":
        return long
    task = replace(long.task, name=f"{long.name}-gpu", title=f"{long.task.title}, on a GPU")
    return replace(long, task=task, about={**long.about, "device": described(device)})


def names(task: str, row: str) -> tuple[str, str, str]:
    return "long", task, row


def protocol(long: LongTask, row: LongRow) -> dict[str, Any]:
    """Return all that must be the same when a row is gone on with."""
    return {
        "steps": long.task.steps,
        "batch": long.task.batch,
        "looks": long.looks,
        "warmup": long.warmup,
        "floor": long.floor,
        "clip": long.clip,
        "setting": dict(row.setting),
        **long.about,
    }


def complete(
    long: LongTask,
    row: LongRow,
    seed: int,
    fit: Callable[[], Fit],
    store: Store,
    advance: Callable[[int], None] = lambda steps: None,
) -> Mapping[str, Any]:
    """Run a row with a seed unless that is stored, and return the whole row as it is stored.

    Raises:
        OtherProtocolError: if the stored row has another setting.
    """
    where, fixed = names(long.name, row.name), protocol(long, row)
    stored = store.resume(fixed, *where)
    runs = list(stored.get("final", []))
    if any(run["seed"] == seed for run in runs):
        advance(long.task.steps)
        return stored
    runs.append(record(long, fit(), row, seed, advance))
    about = {"task": long.name, "optimizer": row.name, "title": row.title, "torch": str(torch.__version__)}
    result = {**about, "protocol": fixed, "final": sorted(runs, key=lambda run: run["seed"])}
    store.write(result, *where)
    return result


def seeds(text: str) -> list[int]:
    return [positive(seed.strip()) for seed in text.split(",")]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-long",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = list(dict.fromkeys(name for rows in ROWS.values() for name in rows))
    tasks = [task for task in ROWS if task not in ON_REQUEST]
    parser.add_argument(
        "--task", type=some_of(ROWS), default=tasks, help=f"some of {','.join(ROWS)} ({','.join(tasks)})"
    )
    parser.add_argument("--optimizer", type=some_of(known), default=known, help=f"some of {','.join(known)} (all)")
    parser.add_argument("--seeds", type=seeds, default=[1, 2, 3], help="whole numbers of at least 1 (1,2,3)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu, with one thread, or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing or results of another protocol are in the way, which is said for each.
    """
    options = parse(arguments)
    torch.set_num_threads(1)
    store, fits = Store(options.out), {}
    failed: dict[str, None] = {}

    def fit_of(long: LongTask) -> Fit:
        if long.name not in fits:
            train, validation = long.task.fit()
            fits[long.name] = moved(train, options.device), moved(validation, options.device)
        return fits[long.name]

    todo = [
        (on_device(LONG[task], options.device), ROWS[task][name], seed)
        for task in options.task
        for seed in options.seeds
        for name in options.optimizer
        if name in ROWS[task]
    ]
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(long.task.steps for long, _, _ in todo))
        for long, row, seed in todo:
            bars.update(bar, description=f"{long.name}, {row.name}, seed {seed}")
            try:
                stored = complete(
                    long, row, seed, lambda long=long: fit_of(long), store, lambda steps: bars.advance(bar, steps)
                )
            except (MissingDataError, OtherProtocolError) as error:
                failed[str(error)] = None
                bars.advance(bar, long.task.steps)
                continue
            (run,) = [run for run in stored["final"] if run["seed"] == seed]
            line = f"{long.name}, {row.name}, seed {seed}: validation {run['validation']}, test {run['test']}"
            say(bars.console, f"{line}; {run['looks'][-1]['seconds']:.0f} s")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0
