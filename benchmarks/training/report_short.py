"""The tables of the short runs."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from benchmarks.training import starts as untuned
from benchmarks.training.optimizers import OPTIMIZERS, TUNED, VARIANTS, Row
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.scores import (
    FAMILY,
    PEERS,
    Results,
    Score,
    reached_by,
    rows_of,
    score,
    scores,
    studies,
    target,
    tasks_of,
    trials,
    trials_near_best,
)
from benchmarks.training.spaces import Log, Space
from benchmarks.training.study import loss_of
from benchmarks.training.tables import number, ranged, table
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import SEEDS

NEAR = 1.25
MAIN = ("inna", "innaprop", "momentum", "adamw")
FINAL = ("final training loss", "final validation loss")


def steps(score: Score) -> str:
    if not math.isfinite(score.steps):
        return f"– ({score.reached}/{score.seeds})"
    return f"{score.steps:g}" + (f" ({score.reached}/{score.seeds})" if score.reached < score.seeds else "")


def overview(results: Results, regime: str) -> str:
    """Return steps to target of all optimizers on all tasks, empty where one was not run; the fewest in bold."""
    rows = []
    for task in tasks_of(results, regime):
        found = scores(results, task, regime)
        least = min(s.steps for s in found.values())
        cells = {row: f"**{steps(s)}**" if s.steps == least < math.inf else steps(s) for row, s in found.items()}
        start = [TASKS[task].title, number(target(results, task, regime)), str(TASKS[task].steps)]
        rows.append([*start, *(cells.get(row, "") for row in rows_of(results, regime))])
    return table(["task", "target", "of steps", *(OPTIMIZERS[row].title for row in rows_of(results, regime))], rows)


def family(results: Results, regime: str) -> dict[str, list[str]]:
    """Return the optimizers of the family one by one, below all of them, by title."""
    ours = [name for name in rows_of(results, regime) if name in FAMILY]
    return {"the best of them": ours, **{OPTIMIZERS[name].title: [name] for name in ours}}


def verdict(results: Results, regime: str, groups: Mapping[str, Sequence[str]]) -> str:
    """Return on how many tasks the best of each group is first against the two main peers."""
    rows = []
    for title, names in groups.items():
        signs = []
        for task in tasks_of(results, regime):
            found = scores(results, task, regime, names)
            if found:
                peers = scores(results, task, regime, PEERS)
                a, b = (min(s.steps for s in group.values()) for group in (found, peers))
                signs.append((a > b) - (a < b))
        if signs:
            rows.append([title, *(f"{signs.count(sign)} of {len(signs)}" for sign in (-1, 0, 1))])
    return table(["against tuned AdamW and SGD with momentum", "ahead in steps", "level", "behind"], rows)


def pairs(results: Results, regime: str) -> str:
    """Return, for pairs of one of the family and one peer, on how many tasks which of them was better.

    Steps are those to the loss that this peer has reached after three quarters of the run.
    """
    rows = []
    names = rows_of(results, regime)
    for ours in (row for row in names if row in FAMILY):
        for theirs in (row for row in names if row not in FAMILY):
            tallies = [[0, 0, 0] for _ in range(3)]
            for task in tasks_of(results, regime):
                if not all((task, regime, name) in results for name in (ours, theirs)):
                    continue
                aim = reached_by(results, task, regime, theirs)
                a, b = (score(results[task, regime, name], aim) for name in (ours, theirs))
                sign = -1 if TASKS[task].higher_is_better else 1
                tests = sign * a.test.median, sign * b.test.median
                compared = ((a.steps, b.steps), (a.train.median, b.train.median), tests)
                for tally, (x, y) in zip(tallies, compared, strict=True):
                    tally[0 if x < y else 1 if x == y else 2] += 1
            cells = ["–".join(map(str, tally)) for tally in tallies]
            rows.append([OPTIMIZERS[ours].title, OPTIMIZERS[theirs].title, *cells])
    return table(["", "against", "steps to its loss at 3/4", "final training loss", "test"], rows)


def digits_of(task: Task) -> Callable[[float], str]:
    """Return how a task's metric is written."""
    return (lambda value: f"{value:.2f}" if math.isfinite(value) else "diverged") if task.higher_is_better else number


def final_cells(found: Score, task: Task) -> list[str]:
    """Return a row's losses and metric at the end."""
    return [ranged(found.train), ranged(found.validation), ranged(found.test, digits_of(task))]


def variants(results: Results, regime: str) -> str:
    """Return one table for each task that a variant was tuned on: each below what it changes, and the peers."""
    parts = []
    for name in tasks_of(results, regime):
        task = TASKS[name]
        found = {base: scores(results, name, regime, [row.name for row in rows]) for base, rows in VARIANTS.items()}
        lines = [
            [TUNED[row].title, steps(s), *final_cells(s, task)]
            for base, changed in found.items()
            if changed or (base in PEERS and any(found.values()))
            for row, s in {**scores(results, name, regime, [base]), **changed}.items()
        ]
        if lines:
            parts.append(table([f"**{task.title}**", "steps to target", *FINAL, task.metric_name], lines))
    return "\n".join(parts)


def starts(store: Store, results: Results) -> str:
    """Return the final validation losses with settings that were not tuned, below those of the tuned ones."""
    tasks = tasks_of(results, "cosine")
    rows = []
    for name in MAIN:
        cells = [ranged(scores(results, task, "cosine", [name])[name].validation) for task in tasks]
        rows.append([f"{OPTIMIZERS[name].title}, tuned", *cells])
    for row in untuned.ROWS:
        found = [store.read(*untuned.names(task, row.name)) for task in tasks]
        done = [run if run and len(run["final"]) == len(SEEDS) else None for run in found]
        rows.append([row.title, *(ranged(score(run, 0.0).validation) if run else "" for run in done)])
    return table(["", *(TASKS[task].title for task in tasks)], rows)


def details(results: Results, regime: str) -> str:
    """Return one table for each task."""
    parts = []
    for name in tasks_of(results, regime):
        task = TASKS[name]
        lines = []
        for row, s in scores(results, name, regime).items():
            seconds = f"{s.seconds:.2f}" if math.isfinite(s.seconds) else "–"
            lines.append([OPTIMIZERS[row].title, steps(s), seconds, *final_cells(s, task)])
        caption = (
            f"**{task.title}**: {task.steps} steps of {task.batch}, {trials(results, name, regime)} trials for each "
            f"optimizer, target {number(target(results, name, regime))}.\n\n"
        )
        parts.append(caption + table(["", "steps to target", "seconds", *FINAL, task.metric_name], lines))
    return "\n".join(parts)


def by_task(results: Results, regime: str, heading: Callable[[str], str], cell: Callable[[str, str], str]) -> str:
    """Return a table with a column for each task, and a line for each optimizer, empty where it was not run."""
    tasks = tasks_of(results, regime)
    lines = []
    for row in rows_of(results, regime):
        cells = [cell(task, row) if (task, regime, row) in results else "" for task in tasks]
        lines.append([OPTIMIZERS[row].title, *cells])
    return table(["", *map(heading, tasks)], lines)


def chosen_settings(results: Results, regime: str) -> str:
    """Return the settings of the winners, in the optimizers' own arguments."""

    def shown(name: str, value: object) -> str:
        if isinstance(value, tuple | list):
            return f"{name} ({', '.join(f'{v:.3g}' for v in value)})"
        return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"

    def cell(task: str, row: str) -> str:
        study = results[task, regime, row]
        setting = dict(study["tuning"][study["winner"]]["setting"])
        q = {"q": setting.pop("q")} if "q" in setting else {}
        return ", ".join(shown(k, v) for k, v in {**OPTIMIZERS[row].arguments(setting), **q}.items())

    return by_task(results, regime, lambda task: TASKS[task].title, cell)


def spaces(shown_rows: Iterable[Row]) -> str:
    """Return the declared search spaces of some optimizers."""

    def shown(space: Space) -> str:
        return "; ".join(f"{name} {range}" for name, range in space.items())

    return table(["", "searched"], [[row.title, shown(row.space)] for row in shown_rows])


def robustness(results: Results, regime: str) -> str:
    """Return how many trials came near the best, which tells how hard an optimizer is to tune."""

    def cell(task: str, row: str) -> str:
        near, diverged = trials_near_best(results, task, regime, row, NEAR)
        return f"{near}" + (f", {diverged} diverged" if diverged else "")

    return by_task(results, regime, lambda task: f"{TASKS[task].title}, of {trials(results, task, regime)}", cell)


def sensitivity(results: Results, regime: str) -> str:
    """Return how trials end in the lower, middle and upper third of each range: the best of them, and the median."""
    rows = []
    task = max(tasks_of(results, regime), key=lambda task: trials(results, task, regime))
    for name in MAIN:
        tuning = results[task, regime, name]["tuning"]
        for coordinate, space in OPTIMIZERS[name].space.items():
            if not isinstance(space, Log):
                continue
            ratio = (space.high / space.low) ** (1 / 3)
            bounds = [space.low, space.low * ratio, space.low * ratio**2, space.high]
            cells = []
            for low, high in pairwise(bounds):
                losses = [loss_of(trial) for trial in tuning if low <= trial["setting"][coordinate] <= high]
                cells.append(f"{number(min(losses))} / {number(statistics.median(losses))}" if losses else "–")
            rows.append([OPTIMIZERS[name].title, coordinate, str(space), *cells])
    return table([TASKS[task].title, "", "range", "lower third", "middle", "upper third"], rows)


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts of the pages by name."""
    results = studies(store)
    changed = [row for rows in VARIANTS.values() for row in rows]
    by_title = {row.title: [row.name] for row in changed}
    parts = {
        "spaces": spaces(OPTIMIZERS.values()),
        "spaces-variants": spaces(changed),
        "starts": starts(store, results),
    }
    for regime in REGIMES:
        if not tasks_of(results, regime):
            continue
        parts |= {
            f"sensitivity-{regime}": sensitivity(results, regime),
            f"overview-{regime}": overview(results, regime) + "\n" + verdict(results, regime, family(results, regime)),
            f"pairs-{regime}": pairs(results, regime),
            f"variants-{regime}": variants(results, regime) + "\n" + verdict(results, regime, by_title),
            f"details-{regime}": details(results, regime),
            f"settings-{regime}": chosen_settings(results, regime),
            f"robustness-{regime}": robustness(results, regime),
        }
    return parts
