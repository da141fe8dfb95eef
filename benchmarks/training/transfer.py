"""Train INNA with SGD's tuned setting and INNAprop with AdamW's, carried over by formula: no trial of their own.

lr, momentum and decay are the peer's; the leads are 1, 1 + m, 3 and 5. Beside them are run, with the same seeds: the
peers with their tuned setting, NAdam with AdamW's, AdamW with a third less and a third more lr, and INNA and INNAprop
with the alpha and beta that follow at the peak of the schedule, so that their momentum grows as the lr falls. The
schedule is the cosine.
Needs the results of `python -m benchmarks training` for the two peers; resumes where it was interrupted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

import inna_core
from benchmarks.training.console import command_parser
from benchmarks.training.long_rows import CONSTANT_MOMENTUM
from benchmarks.training.optimizers import ADAMW, INNA, INNAPROP, NADAM, SGD, Make, Row
from benchmarks.training.results import Store, tuned_setting
from benchmarks.training.schedules import COSINE
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.train import SEEDS, Run, train_all

CHOOSING = SEEDS
"""The seeds on which a lead is chosen."""
CONFIRMING = (4, 5)
"""The seeds on which the choice is confirmed."""
ALL_SEEDS = (*CHOOSING, *CONFIRMING)

Setting = Mapping[str, Any]
"""A peer's tuned setting, in the coordinates of the search."""


def sgd(setting: Setting) -> dict[str, Any]:
    return {"lr": setting["gain"] * setting["forget"], "momentum": 1 - setting["forget"]}


def adamw(setting: Setting, lr_factor: float = 1.0) -> dict[str, Any]:
    betas = (1 - setting["forget"], 1 - setting["forget_squares"])
    return {"lr": lr_factor * setting["lr"], "betas": betas, "weight_decay": setting["weight_decay"]}


def inna_of_sgd(setting: Setting, lead: float | None) -> dict[str, Any]:
    """Return lr, momentum and lead (None: 1 + momentum) for SGD's setting."""
    own = sgd(setting)
    return {**own, "lead": 1 + own["momentum"] if lead is None else lead}


def innaprop_of_adamw(setting: Setting, lead: float | None, lr_factor: float = 1.0) -> dict[str, Any]:
    """Return lr, momentum, lead (None: 1 + momentum), sigma and weight decay for AdamW's setting."""
    own = adamw(setting, lr_factor)
    m, sigma = own.pop("betas")
    return {**own, "momentum": m, "lead": 1 + m if lead is None else lead, "sigma": sigma}


def alpha_beta(algorithm: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dampings in place of momentum and lead, as they are at the peak of a schedule, and the decay for them.

    Args:
        algorithm: of inna_core.
        arguments: lr, momentum, lead and, as far as given, sigma and weight decay.
    """
    at_peak = algorithm(momentum=arguments["momentum"], lead=arguments["lead"]).coefficients(arguments["lr"])
    own = {name: value for name, value in arguments.items() if name not in ("lr", "momentum", "lead")}
    # a step takes lr * weight_decay, and lr is gamma now
    own["weight_decay"] = own.get("weight_decay", 0.0) * arguments["lr"] / at_peak.gamma
    return {"lr": at_peak.gamma, "alpha": at_peak.alpha, "beta": at_peak.beta, **own}


LEADS: tuple[float | None, ...] = (1.0, None, 3.0, 5.0)
"""None is 1 + momentum."""


def lead_name(base: str, lead: float | None) -> str:
    return f"{base}-lead-{'m' if lead is None else f'{lead:g}'}"


def with_leads(base: str, title: str, make: Make, convert: Callable[..., dict[str, Any]]) -> list[Row]:
    def row(lead: float | None) -> Row:
        shown = "1 + m" if lead is None else f"{lead:g}"
        return Row(lead_name(base, lead), f"{title}, lead {shown}", make, lambda setting: convert(setting, lead))

    return [row(lead) for lead in LEADS]


BY_PEER = {
    "momentum": (
        Row("momentum", "SGD, Nesterov", SGD, lambda setting: {**sgd(setting), "nesterov": True}),
        Row("heavy-ball", "SGD, heavy ball", SGD, sgd),
        *with_leads("inna", "INNA", INNA, inna_of_sgd),
        Row(
            *("inna", "INNA, α and β constant", INNA),
            lambda setting: alpha_beta(inna_core.INNA, inna_of_sgd(setting, None)),
        ),
    ),
    "adamw": (
        Row("adamw", "AdamW", ADAMW, adamw),
        Row("adamw-less", "AdamW, lr a third less", ADAMW, lambda setting: adamw(setting, 2 / 3)),
        Row("adamw-more", "AdamW, lr a third more", ADAMW, lambda setting: adamw(setting, 4 / 3)),
        Row("nadam", "NAdam", NADAM, lambda setting: {**adamw(setting), "decoupled_weight_decay": True}),
        Row(
            "nadam-constant", "NAdam, constant momentum", NADAM, lambda setting: {**adamw(setting), **CONSTANT_MOMENTUM}
        ),
        *with_leads("innaprop", "INNAprop", INNAPROP, innaprop_of_adamw),
        Row(
            *("innaprop-lead-m-less", "INNAprop, lead 1 + m, lr a third less", INNAPROP),
            lambda setting: innaprop_of_adamw(setting, None, 2 / 3),
        ),
        Row(
            *("innaprop", "INNAprop, α and β constant", INNAPROP),
            lambda setting: alpha_beta(inna_core.INNAprop, innaprop_of_adamw(setting, None)),
        ),
    ),
}
"""The rows by the peer whose tuned setting they take."""

PEER = {row.name: peer for peer, rows in BY_PEER.items() for row in rows}
BY_NAME = {row.name: row for rows in BY_PEER.values() for row in rows}


def names(task: str, row: str) -> tuple[str, ...]:
    """Return where the results of a row on a task are stored."""
    return "transfer", task, COSINE.name, row


def run(task: Task, row: Row, setting: Setting) -> Run:
    """Return a row on a task with its peer's tuned setting."""
    record = {"set_as": PEER[row.name]}
    return Run(names(task.name, row.name), task, COSINE, row, setting, ALL_SEEDS, record, derived=True)


def runs(task: Task, rows: Iterable[Row], store: Store) -> list[Run]:
    """Return rows on a task with the tuned settings of their peers, those that have been tuned."""
    settings = {peer: tuned_setting(store, task.name, COSINE.name, peer) for peer in BY_PEER}
    return [run(task, row, setting) for row in rows if (setting := settings[PEER[row.name]]) is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see `console.run_jobs`."""
    options = command_parser("training-transfer", __doc__, task=TASKS, optimizer=BY_NAME).parse_args(arguments)
    torch.set_num_threads(1)
    store = Store(options.out)
    rows = [BY_NAME[name] for name in options.optimizer]
    todo = [run for task in options.task for run in runs(TASKS[task], rows, store)]
    return train_all(todo, options)
