"""Train the chosen settings again, and compare with the stored rows: is each median within the stored spread?

Without arguments it repeats all that is stored for digits and Burgers' equation. Writes nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.training.console import Job, add_choice, command_parser, run_jobs
from benchmarks.training.optimizers import TUNED
from benchmarks.training.results import Store
from benchmarks.training.schedules import REGIMES
from benchmarks.training.scores import score, studies
from benchmarks.training.study import Study, settings
from benchmarks.training.tasks import TASKS
from benchmarks.training.train import SEEDS, Advance, final_run, load, no_progress

QUICK = ("digits", "burgers")


def again(stored: Mapping[str, Any], device: torch.device, advance: Advance = no_progress) -> list[dict[str, Any]]:
    """Return the records of the final runs of a stored study, made anew."""
    task, regime, row = TASKS[stored["task"]], REGIMES[stored["regime"]], TUNED[stored["optimizer"]]
    study = Study(task, row, regime, stored["winner"] + 1)
    run = study.run(settings(study.space, study.trials)[-1])
    splits = load(task, device)
    return [final_run(run, splits, seed, advance) for seed in SEEDS]


def compared(stored: Mapping[str, Any], finals: list[dict[str, Any]]) -> dict[str, bool]:
    """Return, for each number of a study, a line with its medians, and whether the new one is in the stored spread."""
    before, now = (score({"final": records}, 0.0) for records in (stored["final"], finals))
    found = {}
    for name in ("train", "validation", "test"):
        spread, median = getattr(before, name), getattr(now, name).median
        within = spread.low <= median <= spread.high
        line = f"{name} {median:.4g} for {spread.median:.4g} ({spread.low:.4g} … {spread.high:.4g})"
        found[line + ("" if within else ", OUTSIDE")] = within
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if a median is outside the stored spread, nothing is stored, or data are missing; the reason is printed.
    """
    parser = command_parser("training-repeat", __doc__, optimizer=TUNED, regime=REGIMES)
    add_choice(parser, "--task", TASKS, QUICK)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keys = [(t, r, o) for t in options.task for r in options.regime for o in options.optimizer]
    stored = [study for key, study in studies(Store(options.out)).items() if key in keys]
    if not stored:
        print(f"nothing is stored for these in {options.out}", file=sys.stderr)
        return 1
    within: list[bool] = []

    def job(study: Mapping[str, Any]) -> Job:
        title = ", ".join(study[name] for name in ("task", "regime", "optimizer"))

        def work(advance: Advance) -> list[str]:
            comparisons = compared(study, again(study, options.device, advance))
            within.append(all(comparisons.values()))
            return [f"{title}: {'; '.join(comparisons)}"]

        return Job(title, TASKS[study["task"]].steps * len(SEEDS), work)

    failed = run_jobs([job(study) for study in stored])
    print(f"{sum(within)} of {len(stored)} rows are repeated within their spread")
    return 1 if failed or not all(within) else 0
