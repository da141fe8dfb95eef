"""The tables of the short runs."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from benchmarks.training.optimizers import OPTIMIZERS, TUNED, VARIANTS, Row
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.scores import (
    FAMILY,
    PEERS,
    Results,
    Score,
    load,
    reached_by,
    rows_of,
    score,
    scores,
    target,
    tasks_of,
    trials,
    trials_near_best,
)
from benchmarks.training.spaces import Log, Space
from benchmarks.training.starts import REGIME as START_REGIME
from benchmarks.training.starts import STARTS
from benchmarks.training.starts import names as start_names
from benchmarks.training.study import SEEDS
from benchmarks.training.tables import number, ranged, table
from benchmarks.training.tasks import TASKS, Task

NEAR = 1.25


def steps(score: Score) -> str:
    if not math.isfinite(score.steps):
        return f"– ({score.reached}/{score.seeds})"
    return f"{score.steps:g}" + (f" ({score.reached}/{score.seeds})" if score.reached < score.seeds else "")


def first(found: dict[str, Score]) -> list[str]:
    """Return those optimizers that reach the target in the fewest steps."""
    least = min(s.steps for s in found.values())
    return [row for row, s in found.items() if s.steps == least and math.isfinite(least)]


def overview(results: Results, regime: str) -> str:
    """Return steps to target of all optimizers on all tasks, empty where one was not run; the fewest in bold."""
    rows = []
    for task in tasks_of(results, regime):
        found = scores(results, task, regime)
        winners = first(found)
        cells = {row: f"**{steps(s)}**" if row in winners else steps(s) for row, s in found.items()}
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


def short(results: Results, regime: str) -> str:
    """Return the test metrics of four optimizers."""
    chosen = ("inna", "innaprop", "momentum", "adamw")
    rows = []
    for task in tasks_of(results, regime):
        found, row = scores(results, task, regime), TASKS[task]
        cells = [ranged(found[name].test, digits_of(row)) if name in found else "" for name in chosen]
        rows.append([row.title, row.metric_name, *cells])
    return table(["task", "", *(OPTIMIZERS[name].title for name in chosen)], rows)


def digits_of(task: Task) -> Callable[[float], str]:
    """Return how a task's metric is written."""
    return (lambda value: f"{value:.2f}" if math.isfinite(value) else "diverged") if task.higher_is_better else number


def variants(results: Results, regime: str) -> str:
    """Return one table for each task that a variant was tuned on: each below what it changes, and the peers."""
    parts = []
    for task in tasks_of(results, regime):
        found = {base: scores(results, task, regime, [row.name for row in rows]) for base, rows in VARIANTS.items()}
        lines = [
            [TUNED[name].title, steps(s), ranged(s.train), ranged(s.validation), ranged(s.test, digits_of(TASKS[task]))]
            for base, changed in found.items()
            if changed or (base in PEERS and any(found.values()))
            for name, s in {**scores(results, task, regime, [base]), **changed}.items()
        ]
        if lines:
            heading = ["steps to target", "final training loss", "final validation loss", TASKS[task].metric_name]
            parts.append(table([f"**{TASKS[task].title}**", *heading], lines))
    return "\n".join(parts)


def starts(store: Store, results: Results) -> str:
    """Return the final validation losses with settings that were not tuned, below those of the tuned ones."""
    regime = START_REGIME.name
    tasks = tasks_of(results, regime)
    tuned = {row: f"{OPTIMIZERS[row].title}, tuned" for row in ("inna", "innaprop", "momentum", "adamw")}
    rows = [
        [title, *(ranged(scores(results, task, regime, [row])[row].validation) for task in tasks)]
        for row, title in tuned.items()
    ]
    for start in STARTS:
        found = [store.read(*start_names(task, start)) for task in tasks]
        done = [run if run and len(run["final"]) == len(SEEDS) else None for run in found]
        cells = [ranged(score(run, 0.0).validation) if run else "" for run in done]
        rows.append([start.title, *cells])
    return table(["", *(TASKS[task].title for task in tasks)], rows)


def details(results: Results, regime: str) -> str:
    """Return one table for each task."""
    parts = []
    for task in tasks_of(results, regime):
        row = TASKS[task]
        lines = [
            [
                OPTIMIZERS[name].title,
                steps(s),
                f"{s.seconds:.2f}" if math.isfinite(s.seconds) else "–",
                ranged(s.train),
                ranged(s.validation),
                ranged(s.test, digits_of(row)),
            ]
            for name, s in scores(results, task, regime).items()
        ]
        heading = ["", "steps to target", "seconds", "final training loss", "final validation loss", row.metric_name]
        caption = (
            f"**{row.title}**: {row.steps} steps of {row.batch}, {trials(results, task, regime)} trials for each "
            f"optimizer, target {number(target(results, task, regime))}.\n\n"
        )
        parts.append(caption + table(heading, lines))
    return "\n".join(parts)


def chosen_settings(results: Results, regime: str) -> str:
    """Return the settings of the winners, in the optimizers' own arguments."""

    def shown(name: str, value: object) -> str:
        if isinstance(value, tuple | list):
            return f"{name} ({', '.join(f'{v:.3g}' for v in value)})"
        return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"

    rows = []
    for row in (OPTIMIZERS[name] for name in rows_of(results, regime)):
        cells = []
        for task in tasks_of(results, regime):
            study = results.get((task, regime, row.name))
            if study is None:
                cells.append("")
                continue
            setting = dict(study["tuning"][study["winner"]]["setting"])
            q = {"q": setting.pop("q")} if "q" in setting else {}
            cells.append(", ".join(shown(k, v) for k, v in {**row.arguments(setting), **q}.items()))
        rows.append([row.title, *cells])
    return table(["", *(TASKS[task].title for task in tasks_of(results, regime))], rows)


def spaces(shown_rows: Iterable[Row]) -> str:
    """Return the declared search spaces of some optimizers."""

    def shown(space: Space) -> str:
        return "; ".join(f"{name} {range}" for name, range in space.items())

    return table(["", "searched"], [[row.title, shown(row.space)] for row in shown_rows])


def robustness(results: Results, regime: str) -> str:
    """Return how many trials came near the best, which tells how hard an optimizer is to tune."""
    rows = []
    tasks = tasks_of(results, regime)
    for row in (OPTIMIZERS[name] for name in rows_of(results, regime)):
        cells = []
        for task in tasks:
            if (task, regime, row.name) not in results:
                cells.append("")
                continue
            near, diverged = trials_near_best(results, task, regime, row.name, NEAR)
            cells.append(f"{near}" + (f", {diverged} diverged" if diverged else ""))
        rows.append([row.title, *cells])
    heading = [f"{TASKS[task].title}, of {trials(results, task, regime)}" for task in tasks]
    return table(["", *heading], rows)


def sensitivity(results: Results, regime: str) -> str:
    """Return how trials end in the lower, middle and upper third of each range: the best of them, and the median."""
    rows = []
    task = max(tasks_of(results, regime), key=lambda task: trials(results, task, regime))
    for name in ("inna", "innaprop", "momentum", "adamw"):
        drawn = results[task, regime, name]["tuning"]
        for coordinate, space in OPTIMIZERS[name].space.items():
            if not isinstance(space, Log):
                continue
            ratio = (space.high / space.low) ** (1 / 3)
            bounds = [space.low, space.low * ratio, space.low * ratio**2, space.high]
            cells = []
            for low, high in pairwise(bounds):
                inside = [trial for trial in drawn if low <= trial["setting"][coordinate] <= high]
                losses = [math.inf if trial["validation"] is None else trial["validation"] for trial in inside]
                cells.append(f"{number(min(losses))} / {number(statistics.median(losses))}" if losses else "–")
            rows.append([OPTIMIZERS[name].title, coordinate, str(space), *cells])
    return table([TASKS[task].title, "", "range", "lower third", "middle", "upper third"], rows)


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts of the pages by name."""
    results = load(store)
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
            f"short-{regime}": short(results, regime),
            f"pairs-{regime}": pairs(results, regime),
            f"variants-{regime}": variants(results, regime) + "\n" + verdict(results, regime, by_title),
            f"details-{regime}": details(results, regime),
            f"settings-{regime}": chosen_settings(results, regime),
            f"robustness-{regime}": robustness(results, regime),
        }
    return parts
