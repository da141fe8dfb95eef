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

A schedule of the lr alone changes them on the way: gain and forget fall with it, so the momentum grows, and lead rises.
Other schedules are variants: with lr f^(1/2), alpha f^(-1/2) and beta f^(1/2), f the schedule's factor, the gain falls
as f while forget and lead stay, as with SGD and Adam.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import inna_core
import inna_torch
from benchmarks.training.schedules import REGIMES
from benchmarks.training.spaces import Choice, Log, Space
from benchmarks.training.tasks import TASKS

Loss = Callable[[], torch.Tensor]
Made = tuple[torch.optim.Optimizer, torch.nn.Module]
"""An optimizer, and the model to evaluate: the one that it trains, or an average of it."""
Make = Callable[..., Made]
"""Makes both from the model to train, its loss on other samples, and the optimizer's arguments by name."""


def alone(optimizer: Callable[..., torch.optim.Optimizer]) -> Make:
    """Return how to train with an optimizer that needs only the parameters."""

    def make(model: torch.nn.Module, _: Loss, **arguments: Any) -> Made:
        return optimizer(model.parameters(), **arguments), model

    return make


INNA, INNAPROP = alone(inna_torch.INNA), alone(inna_torch.INNAprop)
SGD, ADAMW, NADAM = alone(torch.optim.SGD), alone(torch.optim.AdamW), alone(torch.optim.NAdam)


def averaged(make: Make) -> Make:
    """Return how to train in the same way and evaluate an exponential average of the weights."""

    def make_averaged(model: torch.nn.Module, other: Loss, *, forget_weights: float, **arguments: Any) -> Made:
        optimizer, _ = make(model, other, **arguments)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - forget_weights))
        optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
        return optimizer, average

    return make_averaged


def newton(
    model: torch.nn.Module, other: Loss, *, alpha: float, beta: float, trust: float = math.inf, **arguments: Any
) -> Made:
    direction, rule = inna_core.INNA(alpha, beta), inna_core.StepSizes(trust=trust)
    return inna_torch.NewtonSummary(model.named_parameters(), other, direction, rule=rule, **arguments), model


@dataclass(frozen=True)
class Row:
    """An optimizer, and how its arguments follow from a setting.

    Attributes:
        name: on the command line and in the results.
        title: in tables and figures.
        make: the optimizer and the model to evaluate.
        arguments: the optimizer's own arguments, from a setting in the coordinates of the search.
        space: what the tuner may try; empty where the setting is given.
        powers: what a schedule multiplies, and by which power of its factor.
        tasks, regimes: where it is tuned.
    """

    name: str
    title: str
    make: Make
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    space: Space = field(default_factory=dict)
    powers: Mapping[str, float] = field(default_factory=lambda: {"lr": 1.0})
    tasks: tuple[str, ...] = tuple(TASKS)
    regimes: tuple[str, ...] = tuple(REGIMES)


def fixed(name: str, title: str, make: Make, arguments: Mapping[str, Any]) -> Row:
    """Return an optimizer whose arguments are given; those that are left out keep their defaults."""
    return Row(name, title, make, lambda _: dict(arguments))


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


def inna(setting: Mapping[str, Any]) -> dict[str, Any]:
    return inertial(setting["gain"], setting["forget"], setting["lead"])


def innaprop(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {**inna(setting), "sigma": 1 - setting["forget_squares"]}


def published(setting: Mapping[str, Any]) -> dict[str, Any]:
    alpha, beta = setting["alpha_beta"]
    return {"lr": setting["lr"], "alpha": alpha, "beta": beta, "weight_decay": setting["weight_decay"]}


def momentum(setting: Mapping[str, Any]) -> dict[str, Any]:
    forget = setting["forget"]
    return {"lr": setting["gain"] * forget, "momentum": 1 - forget, "nesterov": setting["nesterov"]}


def adam(setting: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in setting.items() if name in ("lr", "weight_decay")}
    return {**own, "betas": (1 - setting["forget"], 1 - setting["forget_squares"])}


ADAM = {"lr": ADAPTIVE_LR, "forget": FORGET, "forget_squares": FORGET_SQUARES}
INERTIAL = {"forget": FORGET, "lead": LEAD}

ROWS = (
    Row("inna", "INNA", INNA, inna, {"gain": GAIN, **INERTIAL}),
    Row(
        *("innaprop", "INNAprop", INNAPROP, innaprop),
        {"gain": ADAPTIVE_LR, **INERTIAL, "forget_squares": FORGET_SQUARES},
    ),
    Row(
        *("innaprop-published", "INNAprop, published α, β", INNAPROP, published),
        {"lr": ADAPTIVE_LR, "alpha_beta": Choice(((0.1, 0.9), (2.0, 2.0))), "weight_decay": WEIGHT_DECAY},
    ),
    Row(
        *("newton", "summary-Newton, INNA's direction", newton, dict),
        {"damping": Log(0.03, 1.0), "alpha": Log(0.1, 2.0), "beta": Log(0.03, 1.0)},
        tasks=("digits", "burgers"),
        regimes=("cosine",),
    ),
    Row("sgd", "SGD", SGD, dict, {"lr": GAIN, "weight_decay": WEIGHT_DECAY}),
    Row(
        *("momentum", "SGD, momentum", SGD, momentum),
        {"gain": GAIN, "forget": FORGET, "nesterov": Choice((False, True))},
    ),
    Row("adagrad", "Adagrad", alone(torch.optim.Adagrad), dict, {"lr": Log(1e-3, 1.0), "weight_decay": WEIGHT_DECAY}),
    Row("adam", "Adam", alone(torch.optim.Adam), adam, ADAM),
    Row("adamw", "AdamW", ADAMW, adam, {**ADAM, "weight_decay": WEIGHT_DECAY}),
    Row(*("nadam", "NAdam", NADAM, adam, ADAM), tasks=("digits", "burgers", "mnist", "fashion")),
)

OPTIMIZERS = {row.name: row for row in ROWS}


# --- variants: what else may be changed on the way --------------------------------------------------------------------

WITH_LR = {"lr": 1.0, "beta": 1.0}
AGAINST_LR = {"lr": 1.0, "alpha": -1.0}
SAME_MOMENTUM = {"lr": 0.5, "alpha": -0.5, "beta": 0.5}
FORGET_WEIGHTS = Log(0.01, 0.5)


def variant(base: str, name: str, title: str, **changes: Any) -> Row:
    """Return an optimizer with changes, for the quick tasks unless they say otherwise."""
    row = OPTIMIZERS[base]
    where = {"tasks": ("digits", "burgers", "mnist"), "regimes": ("cosine",)}
    return replace(row, name=f"{base}-{name}", title=f"{row.title}, {title}", **{**where, **changes})


def with_argument(base: str, argument: str, values: Log) -> dict[str, Any]:
    """Return what an optimizer is changed to that has one more argument, searched among these values."""
    row = OPTIMIZERS[base]

    def arguments(setting: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in setting.items() if name != argument}
        return {**row.arguments(own), argument: setting[argument]}

    return {"space": {**row.space, argument: values}, "arguments": arguments}


def decayed(base: str) -> Row:
    return variant(base, "decay", "decoupled weight decay", **with_argument(base, "weight_decay", WEIGHT_DECAY))


def average(base: str) -> Row:
    make = averaged(OPTIMIZERS[base].make)
    changes = with_argument(base, "forget_weights", FORGET_WEIGHTS)
    return variant(base, "average", "averaged weights", make=make, **changes)


VARIANTS = {
    "inna": (
        variant("inna", "beta", "β ∝ lr", powers=WITH_LR),
        variant("inna", "alpha", "α ∝ 1/lr", powers=AGAINST_LR),
        variant("inna", "momentum", "same momentum", powers=SAME_MOMENTUM),
        decayed("inna"),
        average("inna"),
    ),
    "innaprop": (
        variant("innaprop", "beta", "β ∝ lr", powers=WITH_LR),
        variant("innaprop", "alpha", "α ∝ 1/lr", powers=AGAINST_LR),
        # the one that did best on digits and MNIST, so tried on the others
        variant("innaprop", "momentum", "same momentum", powers=SAME_MOMENTUM, tasks=tuple(TASKS)),
        decayed("innaprop"),
        average("innaprop"),
    ),
    "momentum": (average("momentum"),),
    "adamw": (average("adamw"),),
}
"""By the optimizer that they change. Each has a search space of its own and as many trials."""

TUNED = {**OPTIMIZERS, **{row.name: row for rows in VARIANTS.values() for row in rows}}
