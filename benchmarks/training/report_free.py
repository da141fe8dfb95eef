"""Tables of the optimizers that choose their own step sizes, beside tuned ones."""

from collections.abc import Callable

from benchmarks.training import free, starts, transfer
from benchmarks.training.results import Store, final_loss
from benchmarks.training.scores import Finals, spread
from benchmarks.training.tables import number, ranged, table
from benchmarks.training.tasks import TASKS, Task

Names = Callable[[str], tuple[str, ...]]

ROWS: dict[str, Names] = {
    "AdamW, tuned": lambda task: transfer.names(task, "adamw"),
    "INNAprop, tuned AdamW's setting": lambda task: transfer.names(task, "innaprop-lead-m"),
    "INNA, tuned": lambda task: (task, "cosine", "inna"),
    "INNA, summary-Newton, tuned": lambda task: (task, "cosine", "newton"),
    **{
        row.title: lambda task, name=row.name: starts.names(task, name)
        for row in starts.ROWS
        if row.name in ("adamw-default", "inna-default")
    },
    **{row.title: lambda task, name=row.name: free.names(task, name) for row, _ in free.ROWS},
}
"""Where the results of each row are, by its title: what is tuned, defaults with a learning rate, and without one."""


def losses(finals: Finals, _: Task) -> str:
    return ranged(spread([final_loss(final) for final in finals]))


def metric_and_seconds(finals: Finals, task: Task) -> str:
    metric = spread([final["test"] for final in finals]).median
    seconds = spread([final["evaluations"][-1]["seconds"] for final in finals]).median
    return f"{f'{metric:.2f}' if task.higher_is_better else number(metric)}; {seconds:.1f} s"


def beside_tuned(store: Store, cell: Callable[[Finals, Task], str]) -> str:
    """Return a cell for each row and task, empty where there are no results."""
    rows = []
    for title, names in ROWS.items():
        found = {task: store.read(*names(task)).get("final", []) for task in free.TASK_NAMES}
        seeds = max(map(len, found.values()))
        cells = [cell(finals, TASKS[task]) if finals and len(finals) == seeds else "" for task, finals in found.items()]
        if seeds:
            rows.append([title, str(seeds), *cells])
    return table(["", "seeds", *(TASKS[task].title for task in free.TASK_NAMES)], rows)


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts by name."""
    return {"free": beside_tuned(store, losses), "free-test": beside_tuned(store, metric_and_seconds)}
