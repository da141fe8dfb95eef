"""Train INNA with SGD's tuned setting and INNAprop with AdamW's, converted by rule: no trial of their own.

The rule is the change of coordinates of `benchmarks.training.optimizers`, with lead 1 + m. At a constant lr this makes
INNA the same as SGD with Nesterov's momentum m; along a schedule INNA keeps alpha and beta, so its momentum changes.
Needs the results of `python -m benchmarks training` for the two peers; goes on where it was interrupted.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.training.console import device, progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.optimizers import OPTIMIZERS
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES, Regime
from benchmarks.training.study import SEEDS, repeated
from benchmarks.training.tasks import TASKS, Task


def from_momentum(drawn: Mapping[str, Any]) -> dict[str, Any]:
    return {"gain": drawn["gain"], "forget": drawn["forget"], "lead": 2 - drawn["forget"]}


def from_adamw(drawn: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: drawn[name] for name in ("forget", "forget_squares", "weight_decay")}
    return {"gain": drawn["lr"], "lead": 2 - drawn["forget"], **kept}


@dataclass(frozen=True)
class Transfer:
    """An optimizer, the peer whose setting it takes, and how that is converted."""

    row: str
    peer: str
    convert: Callable[[Mapping[str, Any]], dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{OPTIMIZERS[self.row].title}, set as {OPTIMIZERS[self.peer].title}"


TRANSFERS = (Transfer("inna", "momentum", from_momentum), Transfer("innaprop", "adamw", from_adamw))


def names(task: str, regime: str, transfer: Transfer) -> tuple[str, ...]:
    return "transfer", task, regime, transfer.row


def complete(
    task: Task,
    regime: Regime,
    transfer: Transfer,
    store: Store,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> Mapping[str, Any] | None:
    """Run the final seeds with the peer's converted setting, as far as they are missing.

    Args:
        task: to train.
        regime: of step sizes.
        transfer: what takes whose setting.
        store: where the peer's results are, and where these go.
        device: to train on.
        advance: told the number of steps that have been made, or found done, since it was told before.

    Returns:
        The whole result, as it is stored, or None if the peer has not been tuned.
    """
    peer = store.read(task.name, regime.name, transfer.peer)
    if not peer or len(peer["final"]) < len(SEEDS):
        advance(task.steps * len(SEEDS))
        return None
    tuned = peer["tuning"][peer["winner"]]["setting"]
    own = {**transfer.convert(tuned), **{name: tuned[name] for name in regime.space}}
    where, record = names(task.name, regime.name, transfer), {"set_as": transfer.peer}
    return repeated(task, regime, OPTIMIZERS[transfer.row], own, record, store, where, device, advance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if data are missing, which is said.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known in (("--task", TASKS), ("--regime", REGIMES)):
        parser.add_argument(option, type=some_of(known), default=list(known), help=f"some of {','.join(known)} (all)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    todo = [(TASKS[t], REGIMES[r], transfer) for t in options.task for r in options.regime for transfer in TRANSFERS]
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(task.steps * len(SEEDS) for task, _, _ in todo))
        for task, regime, transfer in todo:
            bars.update(bar, description=f"{task.name}, {regime.name}, {transfer.row}")
            try:
                complete(task, regime, transfer, store, options.device, lambda steps: bars.advance(bar, steps))
            except MissingDataError as error:
                print(error, file=sys.stderr)
                return 1
    return 0
