"""Train INNA with SGD's tuned setting and INNAprop with AdamW's, carried over by formula: no trial of their own.

lr, momentum and decay are the peer's; the leads are 1, 1 + m, 3 and 5. Beside them are run, with the same seeds: the
peers with their tuned setting, NAdam with AdamW's, AdamW with a third less and a third more lr, and INNA and INNAprop
with the alpha and beta that follow at the peak of the schedule, so that their momentum grows as the lr falls. The
schedule is the cosine.
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

import inna_core
import inna_torch
from benchmarks.training.console import device, progress, some_of
from benchmarks.training.data import MissingDataError
from benchmarks.training.long_rows import CONSTANT_MOMENTUM
from benchmarks.training.optimizers import Row, alone
from benchmarks.training.results import FOLDER, Store
from benchmarks.training.schedules import REGIMES, Regime
from benchmarks.training.study import SEEDS, repeated
from benchmarks.training.tasks import TASKS, Task

CHOOSING = SEEDS
"""The seeds on which a lead is chosen."""
CONFIRMING = (4, 5)
"""The seeds on which the choice is confirmed."""
ALL_SEEDS = (*CHOOSING, *CONFIRMING)

Drawn = Mapping[str, Any]
"""A tuned setting, in the coordinates of the search."""


@dataclass(frozen=True)
class Transfer:
    """An optimizer that takes a peer's tuned setting.

    Attributes:
        name: in the results.
        title: in tables.
        peer: whose setting it takes.
        optimizer: makes it from parameters.
        convert: the peer's setting, as drawn, to the optimizer's own arguments.
    """

    name: str
    title: str
    peer: str
    optimizer: Callable[..., torch.optim.Optimizer]
    convert: Callable[[Drawn], dict[str, Any]]

    @property
    def row(self) -> Row:
        return Row(self.name, self.title, {}, dict, alone(self.optimizer))


def sgd(drawn: Drawn) -> dict[str, Any]:
    return {"lr": drawn["gain"] * drawn["forget"], "momentum": 1 - drawn["forget"]}


def adamw(drawn: Drawn, lr_factor: float = 1.0) -> dict[str, Any]:
    betas = (1 - drawn["forget"], 1 - drawn["forget_squares"])
    return {"lr": lr_factor * drawn["lr"], "betas": betas, "weight_decay": drawn["weight_decay"]}


def inna_of_sgd(drawn: Drawn, lead: float | None) -> dict[str, Any]:
    """Return lr, momentum and lead (None: 1 + momentum) for SGD's setting."""
    setting = sgd(drawn)
    return {**setting, "lead": 1 + setting["momentum"] if lead is None else lead}


def innaprop_of_adamw(drawn: Drawn, lead: float | None, lr_factor: float = 1.0) -> dict[str, Any]:
    """Return lr, momentum, lead (None: 1 + momentum), sigma and weight decay for AdamW's setting."""
    setting = adamw(drawn, lr_factor)
    m, sigma = setting["betas"]
    kept = {name: setting[name] for name in ("lr", "weight_decay")}
    return {**kept, "momentum": m, "lead": 1 + m if lead is None else lead, "sigma": sigma}


def alpha_beta(algorithm: Callable[..., Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dampings in place of momentum and lead, as they are at the peak of a schedule, and the decay for them.

    Args:
        algorithm: of inna_core.
        setting: lr, momentum, lead and, as far as given, sigma and weight decay.
    """
    at_peak = algorithm(momentum=setting["momentum"], lead=setting["lead"]).coefficients(setting["lr"])
    own = {name: value for name, value in setting.items() if name not in ("lr", "momentum", "lead")}
    # a step takes lr * weight_decay, and lr is gamma now
    own["weight_decay"] = own.get("weight_decay", 0.0) * setting["lr"] / at_peak.gamma
    return {"lr": at_peak.gamma, "alpha": at_peak.alpha, "beta": at_peak.beta, **own}


LEADS: tuple[float | None, ...] = (1.0, None, 3.0, 5.0)
"""None is 1 + momentum."""


def lead_title(lead: float | None) -> str:
    return "1 + m" if lead is None else f"{lead:g}"


def lead_name(base: str, lead: float | None) -> str:
    return f"{base}-lead-{'m' if lead is None else f'{lead:g}'}"


def with_leads(base: str, title: str, peer: str, optimizer: Any, convert: Callable[..., Any]) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(
            *(lead_name(base, lead), f"{title}, lead {lead_title(lead)}", peer, optimizer),
            lambda drawn, lead=lead: convert(drawn, lead),
        )
        for lead in LEADS
    )


TRANSFERS = (
    Transfer("momentum", "SGD, Nesterov", "momentum", torch.optim.SGD, lambda drawn: {**sgd(drawn), "nesterov": True}),
    Transfer("heavy-ball", "SGD, heavy ball", "momentum", torch.optim.SGD, sgd),
    *with_leads("inna", "INNA", "momentum", inna_torch.INNA, inna_of_sgd),
    Transfer(
        *("inna", "INNA, α and β constant", "momentum", inna_torch.INNA),
        lambda drawn: alpha_beta(inna_core.INNA, inna_of_sgd(drawn, None)),
    ),
    Transfer("adamw", "AdamW", "adamw", torch.optim.AdamW, adamw),
    Transfer("adamw-less", "AdamW, lr a third less", "adamw", torch.optim.AdamW, lambda drawn: adamw(drawn, 2 / 3)),
    Transfer("adamw-more", "AdamW, lr a third more", "adamw", torch.optim.AdamW, lambda drawn: adamw(drawn, 4 / 3)),
    Transfer(
        *("nadam", "NAdam", "adamw", torch.optim.NAdam), lambda drawn: {**adamw(drawn), "decoupled_weight_decay": True}
    ),
    Transfer(
        *("nadam-constant", "NAdam, constant momentum", "adamw", torch.optim.NAdam),
        lambda drawn: {**adamw(drawn), **CONSTANT_MOMENTUM},
    ),
    *with_leads("innaprop", "INNAprop", "adamw", inna_torch.INNAprop, innaprop_of_adamw),
    Transfer(
        *("innaprop-lead-m-less", "INNAprop, lead 1 + m, lr a third less", "adamw", inna_torch.INNAprop),
        lambda drawn: innaprop_of_adamw(drawn, None, 2 / 3),
    ),
    Transfer(
        *("innaprop", "INNAprop, α and β constant", "adamw", inna_torch.INNAprop),
        lambda drawn: alpha_beta(inna_core.INNAprop, innaprop_of_adamw(drawn, None)),
    ),
)

BY_NAME = {transfer.name: transfer for transfer in TRANSFERS}


def names(task: str, regime: str, transfer: Transfer) -> tuple[str, ...]:
    return "transfer", task, regime, transfer.name


def tuned_setting(task: str, regime: str, peer: str, store: Store) -> dict[str, Any] | None:
    """Return the setting that was chosen for a peer, as drawn, or None if it has not been tuned."""
    stored = store.read(task, regime, peer)
    if not stored or len(stored["final"]) < len(SEEDS):
        return None
    return stored["tuning"][stored["winner"]]["setting"]


def complete(
    task: Task,
    regime: Regime,
    transfer: Transfer,
    store: Store,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> Mapping[str, Any] | None:
    """Run all seeds with the peer's setting, as far as they are missing.

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
    drawn = tuned_setting(task.name, regime.name, transfer.peer, store)
    if drawn is None:
        advance(task.steps * len(ALL_SEEDS))
        return None
    own = {**transfer.convert(drawn), **{name: drawn[name] for name in regime.space}}
    where, record = names(task.name, regime.name, transfer), {"set_as": transfer.peer}
    return repeated(task, regime, transfer.row, own, record, store, where, device, advance, seeds=ALL_SEEDS)


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
    for option, known in (("--task", TASKS), ("--optimizer", BY_NAME)):
        parser.add_argument(option, type=some_of(known), default=list(known), help=f"some of {','.join(known)} (all)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (benchmarks/results/training)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    todo = [(TASKS[task], BY_NAME[name]) for task in options.task for name in options.optimizer]
    with progress(Console()) as bars:
        bar = bars.add_task("", total=sum(task.steps * len(ALL_SEEDS) for task, _ in todo))
        for task, transfer in todo:
            bars.update(bar, description=f"{task.name}, {transfer.name}")
            try:
                complete(
                    task, REGIMES["cosine"], transfer, store, options.device, lambda steps: bars.advance(bar, steps)
                )
            except MissingDataError as error:
                print(error, file=sys.stderr)
                return 1
    return 0
