"""The optimizers of the long runs, with their settings: nothing is tuned but the lr of AdamW, and then INNAprop's."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import inna_torch


@dataclass(frozen=True)
class LongRow:
    """An optimizer with its setting.

    Attributes:
        name: on the command line and in the results.
        title: in tables.
        optimizer: makes it, from param groups.
        setting: its arguments.
    """

    name: str
    title: str
    optimizer: Callable[..., torch.optim.Optimizer]
    setting: Mapping[str, Any]


def by_name(*rows: LongRow) -> dict[str, LongRow]:
    return {row.name: row for row in rows}


def adamw(name: str, lr: float, betas: tuple[float, float], decay: float) -> LongRow:
    setting = {"lr": lr, "betas": betas, "weight_decay": decay}
    return LongRow(name, f"AdamW, lr {lr:g}", torch.optim.AdamW, setting)


def innaprop(lead: float, lr: float, betas: tuple[float, float], decay: float) -> LongRow:
    """Return INNAprop with a setting of AdamW."""
    setting = {"lr": lr, "momentum": betas[0], "lead": lead, "sigma": betas[1], "weight_decay": decay}
    return LongRow(f"innaprop-{lead:g}", f"INNAprop, AdamW's setting, lead {lead:g}", inna_torch.INNAprop, setting)


def converted(lr: float, betas: tuple[float, float], decay: float) -> LongRow:
    """Return INNAprop with the alpha and beta that AdamW's setting has at its peak lr: momentum rises as lr falls."""
    peak, lead = math.sqrt(lr * (1 - betas[0])), 1 + betas[0]
    setting = {"lr": peak, "alpha": (1 - betas[0]) / peak, "beta": lead * peak, "sigma": betas[1]}
    title = "INNAprop, AdamW's setting, alpha and beta constant"
    # Decoupled decay multiplies by 1 - lr * weight_decay in both forms, so the product is kept.
    return LongRow("innaprop-converted", title, inna_torch.INNAprop, {**setting, "weight_decay": decay * lr / peak})


def decayed(row: LongRow, decay: float) -> LongRow:
    """Return a row with another weight decay."""
    setting = {**row.setting, "weight_decay": decay}
    return LongRow(f"{row.name}-decay-{decay:g}", f"{row.title}, decay {decay:g}", row.optimizer, setting)


def at_lr(row: LongRow, name: str, lr: float) -> LongRow:
    """Return a row with another lr, and a name that ends accordingly."""
    return LongRow(f"{row.name}-{name}", f"{row.title}, lr {lr:g}", row.optimizer, {**row.setting, "lr": lr})


def published(name: str, pair: tuple[float, float], lr: float, decay: float, *, true: bool, sigma: float) -> LongRow:
    """Return INNAprop with one of the paper's pairs, with the published decay or the true one."""
    alpha, beta = pair
    setting = {"lr": lr, "alpha": alpha, "beta": beta, "sigma": sigma, "weight_decay": decay}
    title = f"INNAprop ({alpha:g}, {beta:g}), lr {lr:g}, {'true' if true else 'published'} decay"
    return LongRow(name, title, inna_torch.INNAprop, {**setting, "published_decay": not true})


CONSTANT_MOMENTUM = {"momentum_decay": 1e9, "decoupled_weight_decay": True}
"""Makes torch's NAdam AdamW with Nesterov's momentum: beta1 from the start, where it grows over thousands of steps."""

GPT_BETAS, GPT_DECAY = (0.9, 0.99), 0.1
DECAYS = (0.01, 0.3, 1.0)
"""Besides `GPT_DECAY`, for the question what decay does for AdamW and INNAprop."""
DECAYED = ("adamw", "innaprop-3", "innaprop-published", "innaprop-true")
"""The rows that are run with them."""
GPT_CARRIED = by_name(
    adamw("adamw", 3e-3, GPT_BETAS, GPT_DECAY),
    *(innaprop(lead, 3e-3, GPT_BETAS, GPT_DECAY) for lead in (1.9, 3.0, 1.0, 5.0)),
    adamw("adamw-less", 2e-3, GPT_BETAS, GPT_DECAY),
    adamw("adamw-more", 4e-3, GPT_BETAS, GPT_DECAY),
    converted(3e-3, GPT_BETAS, GPT_DECAY),
    LongRow(
        *("nadam", "NAdam, lr 0.003", torch.optim.NAdam),
        {"lr": 3e-3, "betas": GPT_BETAS, "weight_decay": GPT_DECAY, "decoupled_weight_decay": True},
    ),
    LongRow(
        *("nadam-constant", "NAdam, constant momentum, lr 0.003", torch.optim.NAdam),
        {"lr": 3e-3, "betas": GPT_BETAS, "weight_decay": GPT_DECAY, **CONSTANT_MOMENTUM},
    ),
    published("innaprop-published", (0.1, 0.9), 3e-3, GPT_DECAY, true=False, sigma=0.99),
    published("innaprop-true", (0.1, 0.9), 3e-3, GPT_DECAY, true=True, sigma=0.99),
    published("innaprop-published-2", (2.0, 2.0), 3e-3, GPT_DECAY, true=False, sigma=0.99),
)

GPT = {
    **GPT_CARRIED,
    **by_name(*(decayed(GPT_CARRIED[name], decay) for name in DECAYED for decay in DECAYS)),
}

MNIST_BETAS, MNIST_DECAY = (0.9, 0.999), 0.01
SGD = {"lr": 0.05, "momentum": 0.9}
MNIST = by_name(
    LongRow("adam", "Adam, lr 0.001", torch.optim.Adam, {"lr": 1e-3, "betas": MNIST_BETAS}),
    adamw("adamw", 1e-3, MNIST_BETAS, MNIST_DECAY),
    adamw("adamw-less", 5e-4, MNIST_BETAS, MNIST_DECAY),
    adamw("adamw-more", 2e-3, MNIST_BETAS, MNIST_DECAY),
    LongRow("momentum", "SGD, Nesterov, lr 0.05", torch.optim.SGD, {**SGD, "nesterov": True}),
    LongRow("inna-1.9", "INNA, SGD's setting, lead 1.9", inna_torch.INNA, {**SGD, "lead": 1.9}),
    *(innaprop(lead, 1e-3, MNIST_BETAS, MNIST_DECAY) for lead in (1.9, 3.0)),
    *(at_lr(innaprop(1.9, 1e-3, MNIST_BETAS, MNIST_DECAY), name, lr) for name, lr in (("less", 5e-4), ("more", 2e-3))),
    converted(1e-3, MNIST_BETAS, MNIST_DECAY),
    *(
        published(f"innaprop-{name}", pair, 1e-3, MNIST_DECAY, true=False, sigma=0.999)
        for name, pair in (("published", (0.1, 0.9)), ("published-1", (1.0, 1.0)), ("published-2", (2.0, 2.0)))
    ),
)

CIFAR_BETAS, CIFAR_DECAY = (0.9, 0.999), 0.01
CIFAR_SGD, CIFAR_L2 = {"lr": 0.1, "momentum": 0.9}, 5e-4


def l2_regularized(optimizer: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer with the argument `l2`, whose multiple of the parameters is added to their gradients.

    This is what SGD does with its `weight_decay`, while INNA's is decoupled.
    """

    def make(groups: Any, *, l2: float, **setting: Any) -> torch.optim.Optimizer:
        made = optimizer(groups, **setting)

        def add(*_: Any) -> None:
            params = [p for group in made.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_add_([p.grad for p in params], [p.detach() for p in params], alpha=l2)

        made.register_step_pre_hook(add)
        return made

    return make


CIFAR = by_name(
    adamw("adamw", 1e-3, CIFAR_BETAS, CIFAR_DECAY),
    innaprop(1.9, 1e-3, CIFAR_BETAS, CIFAR_DECAY),
    LongRow(
        *("momentum", "SGD, Nesterov, lr 0.1", torch.optim.SGD),
        {**CIFAR_SGD, "nesterov": True, "weight_decay": CIFAR_L2},
    ),
    LongRow(
        *("inna-1.9", "INNA, SGD's setting, lead 1.9", l2_regularized(inna_torch.INNA)),
        {**CIFAR_SGD, "lead": 1.9, "l2": CIFAR_L2},
    ),
)

ROWS = {
    "gpt-2000": GPT,
    "mnist-20": MNIST,
    "gpt-10000": {
        **{name: row for name, row in GPT_CARRIED.items() if name not in ("innaprop-1", "innaprop-5")},
        **by_name(
            adamw("adamw-least", 1.3e-3, GPT_BETAS, GPT_DECAY),
            *(at_lr(GPT_CARRIED["innaprop-1.9"], name, lr) for name, lr in (("less", 2e-3), ("least", 1.3e-3))),
        ),
    },
    "cifar10-nin-5": CIFAR,
}
ON_REQUEST = ("gpt-10000", "cifar10-nin-5")
"""Tasks that take hours, run only if they are named."""
