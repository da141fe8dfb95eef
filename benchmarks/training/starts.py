"""Train with settings that nobody tuned: defaults, and what docs/training_short_runs.md says to start with.

Every task, the cosine schedule, the seeds of the final runs. Resumes where it was interrupted.
"""

from collections.abc import Sequence

import torch

from benchmarks.training.console import command_parser
from benchmarks.training.optimizers import ADAMW, INNA, INNAPROP, SGD, Row, fixed
from benchmarks.training.schedules import COSINE
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import Run, train_all

ROWS = (
    fixed("inna-default", "INNA, defaults (0.1, 0.5, 0.1)", INNA, {}),
    fixed("inna-start", "INNA (0.3, 0.3, 1)", INNA, {"lr": 0.3, "alpha": 0.3, "beta": 1.0}),
    fixed(
        *("inna-momentum", "INNA (0.316, 0.316, 0.601), which is SGD 0.1, 0.9", INNA),
        {"lr": 0.316, "alpha": 0.316, "beta": 0.601},
    ),
    fixed("momentum-start", "SGD, Nesterov (0.1, 0.9)", SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    fixed("innaprop-default", "INNAprop, defaults (0.001, 0.1, 0.9)", INNAPROP, {}),
    fixed(
        *("innaprop-adamw", "INNAprop (0.01, 10, 0.019), which is AdamW 0.001, 0.9", INNAPROP),
        {"lr": 0.01, "alpha": 10.0, "beta": 0.019, "weight_decay": 0.001},
    ),
    fixed(
        *("innaprop-start", "INNAprop (0.0173, 5.77, 0.0329), which is AdamW 0.003, 0.9", INNAPROP),
        {"lr": 0.0173, "alpha": 5.77, "beta": 0.0329, "weight_decay": 0.00173},
    ),
    fixed("adamw-default", "AdamW, defaults (0.001, 0.9)", ADAMW, {}),
    fixed("adamw-start", "AdamW (0.003, 0.9)", ADAMW, {"lr": 3e-3}),
)


def names(task: str, row: str) -> tuple[str, ...]:
    """Return where the results of a row on a task are stored."""
    return "start", task, COSINE.name, row


def run(task: Task, row: Row) -> Run:
    return Run(names(task.name, row.name), task, COSINE, row)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    options = command_parser("training-starts", __doc__, task=TASKS).parse_args(arguments)
    torch.set_num_threads(1)
    runs = [run(TASKS[task], row) for task in options.task for row in ROWS]
    return train_all(runs, options)
