"""The optimizers, one row each: how to make it, and the search space in which it is tuned.

Momentum methods are searched in the same two coordinates, whatever their own parameters are called:

    gain     the sum of all steps that one gradient causes, in units of that gradient
    forget   1 - m, the part of the momentum that is lost in a step

SGD with momentum has gain = lr / (1 - m). INNA, v <- (1 - alpha lr) v - lr (1 - alpha beta) g and
theta <- theta + lr (v - beta g), has gain = lr / alpha, forget = alpha lr, and a third coordinate,

    lead     beta / lr, how much stronger the first step that a gradient causes is than the next,

up to the factor 1 - alpha beta of the latter. Below 1 it adds a limit of stability, curvature < 1 / (gain (1 - lead)),
to the usual one (`inna_core.dynamics`). At a constant lr, lead 1 is the heavy ball and lead 1 + m Nesterov's momentum,
exactly. So lr = sqrt(gain forget), alpha = sqrt(forget / gain) and beta = lead lr: a change of coordinates, one to one,
in which a box holds what is worth trying. With a schedule these are the coordinates at its peak.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import inna_torch
from benchmarks.training.spaces import Choice, Log, Space

Params = Iterable[torch.nn.Parameter]


@dataclass(frozen=True)
class Row:
    """An optimizer to tune.

    Attributes:
        name: on the command line and in the results.
        title: in tables and figures.
        space: what the tuner may try.
        arguments: turns what the tuner has drawn into the optimizer's own arguments.
        make: the optimizer's class.
    """

    name: str
    title: str
    space: Space
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    make: Callable[..., torch.optim.Optimizer]


GAIN = Log(0.01, 10.0)
FORGET = Log(0.02, 0.5)
LEAD = Log(1.0, 5.0)
ADAPTIVE_LR = Log(1e-4, 1e-1)
FORGET_SQUARES = Log(1e-3, 1e-1)
WEIGHT_DECAY = Log(1e-4, 1e-1)


def inertial(gain: float, forget: float, lead: float) -> dict[str, float]:
    """Return INNA's lr, alpha and beta for the coordinates of the search."""
    lr = math.sqrt(gain * forget)
    return {"lr": lr, "alpha": math.sqrt(forget / gain), "beta": lead * lr}


def inna(drawn: Mapping[str, Any]) -> dict[str, Any]:
    return inertial(drawn["gain"], drawn["forget"], drawn["lead"])


def innaprop(drawn: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in drawn.items() if name == "weight_decay"}
    return {**inertial(drawn["gain"], drawn["forget"], drawn["lead"]), "sigma": 1 - drawn["forget_squares"], **own}


def published(drawn: Mapping[str, Any]) -> dict[str, Any]:
    alpha, beta = drawn["alpha_beta"]
    return {"lr": drawn["lr"], "alpha": alpha, "beta": beta, "weight_decay": drawn["weight_decay"]}


def momentum(drawn: Mapping[str, Any]) -> dict[str, Any]:
    forget = drawn["forget"]
    return {"lr": drawn["gain"] * forget, "momentum": 1 - forget, "nesterov": drawn["nesterov"]}


def adam(drawn: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in drawn.items() if name in ("lr", "weight_decay")}
    return {**own, "betas": (1 - drawn["forget"], 1 - drawn["forget_squares"])}


ADAM = {"lr": ADAPTIVE_LR, "forget": FORGET, "forget_squares": FORGET_SQUARES}
INERTIAL = {"forget": FORGET, "lead": LEAD}

ROWS = (
    Row("inna", "INNA", {"gain": GAIN, **INERTIAL}, inna, inna_torch.INNA),
    Row(
        *("innaprop", "INNAprop", {"gain": ADAPTIVE_LR, **INERTIAL, "forget_squares": FORGET_SQUARES}),
        *(innaprop, inna_torch.INNAprop),
    ),
    Row(
        *("innaprop-published", "INNAprop, published α, β"),
        {"lr": ADAPTIVE_LR, "alpha_beta": Choice(((0.1, 0.9), (2.0, 2.0))), "weight_decay": WEIGHT_DECAY},
        *(published, inna_torch.INNAprop),
    ),
    Row("sgd", "SGD", {"lr": GAIN, "weight_decay": WEIGHT_DECAY}, dict, torch.optim.SGD),
    Row(
        *("momentum", "SGD, momentum"),
        {"gain": GAIN, "forget": FORGET, "nesterov": Choice((False, True))},
        *(momentum, torch.optim.SGD),
    ),
    Row("adagrad", "Adagrad", {"lr": Log(1e-3, 1.0), "weight_decay": WEIGHT_DECAY}, dict, torch.optim.Adagrad),
    Row("adam", "Adam", ADAM, adam, torch.optim.Adam),
    Row("adamw", "AdamW", {**ADAM, "weight_decay": WEIGHT_DECAY}, adam, torch.optim.AdamW),
)

OPTIMIZERS = {row.name: row for row in ROWS}
