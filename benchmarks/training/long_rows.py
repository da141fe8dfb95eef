"""The optimizers of the long runs, with their settings: nothing is tuned but the lr of AdamW, and then INNAprop's."""

import math
from collections.abc import Callable
from typing import Any

import torch

import inna_torch
from benchmarks.training.optimizers import Loss, Made, Make, Row, alone, fixed

Optimizer = Callable[..., torch.optim.Optimizer]
CLIP = 1.0
"""The greatest norm of the GPT's gradients."""
How = Callable[[Optimizer], Make]
"""How a task trains with an optimizer: `alone` or `nanogpt`."""


def nanogpt(optimizer: Optimizer) -> Make:
    """Return how nanoGPT trains with an optimizer: only matrices decay, and gradients are clipped."""

    def make(model: torch.nn.Module, _: Loss, *, weight_decay: float, **arguments: Any) -> Made:
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        made = optimizer(groups, **arguments)

        def clip(*_: Any) -> None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)

        made.register_step_pre_hook(clip)
        return made, model

    return make


def by_name(*rows: Row) -> dict[str, Row]:
    return {row.name: row for row in rows}


def adamw(name: str, lr: float, betas: tuple[float, float], decay: float, how: How = alone) -> Row:
    setting = {"lr": lr, "betas": betas, "weight_decay": decay}
    return fixed(name, f"AdamW, lr {lr:g}", how(torch.optim.AdamW), setting)


def innaprop(lead: float, lr: float, betas: tuple[float, float], decay: float, how: How = alone) -> Row:
    """Return INNAprop with a setting of AdamW."""
    setting = {"lr": lr, "momentum": betas[0], "lead": lead, "sigma": betas[1], "weight_decay": decay}
    return fixed(f"innaprop-{lead:g}", f"INNAprop, AdamW's setting, lead {lead:g}", how(inna_torch.INNAprop), setting)


def converted(lr: float, betas: tuple[float, float], decay: float, how: How = alone) -> Row:
    """Return INNAprop with the alpha and beta that AdamW's setting has at its peak lr: momentum rises as lr falls."""
    peak, lead = math.sqrt(lr * (1 - betas[0])), 1 + betas[0]
    setting = {"lr": peak, "alpha": (1 - betas[0]) / peak, "beta": lead * peak, "sigma": betas[1]}
    title = "INNAprop, AdamW's setting, alpha and beta constant"
    # Decoupled decay multiplies by 1 - lr * weight_decay in both forms, so the product is kept.
    setting["weight_decay"] = decay * lr / peak
    return fixed("innaprop-converted", title, how(inna_torch.INNAprop), setting)


def decayed(row: Row, decay: float) -> Row:
    """Return a row with another weight decay."""
    setting = {**row.arguments({}), "weight_decay": decay}
    return fixed(f"{row.name}-decay-{decay:g}", f"{row.title}, decay {decay:g}", row.make, setting)


def at_lr(row: Row, name: str, lr: float) -> Row:
    """Return a row with another lr, and a name that ends accordingly."""
    return fixed(f"{row.name}-{name}", f"{row.title}, lr {lr:g}", row.make, {**row.arguments({}), "lr": lr})


def published(
    name: str, pair: tuple[float, float], lr: float, sigma: float, decay: float, how: How = alone, *, true: bool = False
) -> Row:
    """Return INNAprop with one of the paper's pairs, with the published decay or the true one."""
    alpha, beta = pair
    setting = {"lr": lr, "alpha": alpha, "beta": beta, "sigma": sigma, "weight_decay": decay}
    title = f"INNAprop ({alpha:g}, {beta:g}), lr {lr:g}, {'true' if true else 'published'} decay"
    return fixed(name, title, how(inna_torch.INNAprop), {**setting, "published_decay": not true})


CONSTANT_MOMENTUM = {"momentum_decay": 1e9, "decoupled_weight_decay": True}
"""Makes torch's NAdam AdamW with Nesterov's momentum: beta1 from the start, where it grows over thousands of steps."""

GPT_BETAS, GPT_DECAY = (0.9, 0.99), 0.1
DECAYS = (0.01, 0.3, 1.0)
"""Besides `GPT_DECAY`, for the question what decay does for AdamW and INNAprop."""
DECAYED = ("adamw", "innaprop-3", "innaprop-published", "innaprop-true")
"""The rows that are run with them."""
GPT_CARRIED = by_name(
    adamw("adamw", 3e-3, GPT_BETAS, GPT_DECAY, nanogpt),
    *(innaprop(lead, 3e-3, GPT_BETAS, GPT_DECAY, nanogpt) for lead in (1.9, 3.0, 1.0, 5.0)),
    adamw("adamw-less", 2e-3, GPT_BETAS, GPT_DECAY, nanogpt),
    adamw("adamw-more", 4e-3, GPT_BETAS, GPT_DECAY, nanogpt),
    converted(3e-3, GPT_BETAS, GPT_DECAY, nanogpt),
    fixed(
        *("nadam", "NAdam, lr 0.003", nanogpt(torch.optim.NAdam)),
        {"lr": 3e-3, "betas": GPT_BETAS, "weight_decay": GPT_DECAY, "decoupled_weight_decay": True},
    ),
    fixed(
        *("nadam-constant", "NAdam, constant momentum, lr 0.003", nanogpt(torch.optim.NAdam)),
        {"lr": 3e-3, "betas": GPT_BETAS, "weight_decay": GPT_DECAY, **CONSTANT_MOMENTUM},
    ),
    published("innaprop-published", (0.1, 0.9), 3e-3, 0.99, GPT_DECAY, nanogpt),
    published("innaprop-true", (0.1, 0.9), 3e-3, 0.99, GPT_DECAY, nanogpt, true=True),
    published("innaprop-published-2", (2.0, 2.0), 3e-3, 0.99, GPT_DECAY, nanogpt),
)

GPT = {
    **GPT_CARRIED,
    **by_name(*(decayed(GPT_CARRIED[name], decay) for name in DECAYED for decay in DECAYS)),
}

MNIST_BETAS, MNIST_DECAY = (0.9, 0.999), 0.01
SGD = {"lr": 0.05, "momentum": 0.9}
MNIST = by_name(
    fixed("adam", "Adam, lr 0.001", alone(torch.optim.Adam), {"lr": 1e-3, "betas": MNIST_BETAS}),
    adamw("adamw", 1e-3, MNIST_BETAS, MNIST_DECAY),
    adamw("adamw-less", 5e-4, MNIST_BETAS, MNIST_DECAY),
    adamw("adamw-more", 2e-3, MNIST_BETAS, MNIST_DECAY),
    fixed("momentum", "SGD, Nesterov, lr 0.05", alone(torch.optim.SGD), {**SGD, "nesterov": True}),
    fixed("inna-1.9", "INNA, SGD's setting, lead 1.9", alone(inna_torch.INNA), {**SGD, "lead": 1.9}),
    *(innaprop(lead, 1e-3, MNIST_BETAS, MNIST_DECAY) for lead in (1.9, 3.0)),
    *(at_lr(innaprop(1.9, 1e-3, MNIST_BETAS, MNIST_DECAY), name, lr) for name, lr in (("less", 5e-4), ("more", 2e-3))),
    converted(1e-3, MNIST_BETAS, MNIST_DECAY),
    *(
        published(f"innaprop-{name}", pair, 1e-3, 0.999, MNIST_DECAY)
        for name, pair in (("published", (0.1, 0.9)), ("published-1", (1.0, 1.0)), ("published-2", (2.0, 2.0)))
    ),
)

CIFAR_BETAS, CIFAR_DECAY = (0.9, 0.999), 0.01
CIFAR_SGD, CIFAR_L2 = {"lr": 0.1, "momentum": 0.9}, 5e-4


def l2_regularized(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer with the argument `l2`, whose multiple of the parameters is added to their gradients.

    This is what SGD does with its `weight_decay`, while INNA's is decoupled.
    """

    def make(params: Any, *, l2: float, **arguments: Any) -> torch.optim.Optimizer:
        made = optimizer(params, **arguments)

        def add(*_: Any) -> None:
            params = [p for group in made.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_add_([p.grad for p in params], [p.detach() for p in params], alpha=l2)

        made.register_step_pre_hook(add)
        return made

    return make


CIFAR = by_name(
    adamw("adamw", 1e-3, CIFAR_BETAS, CIFAR_DECAY),
    innaprop(1.9, 1e-3, CIFAR_BETAS, CIFAR_DECAY),
    fixed(
        *("momentum", "SGD, Nesterov, lr 0.1", alone(torch.optim.SGD)),
        {**CIFAR_SGD, "nesterov": True, "weight_decay": CIFAR_L2},
    ),
    fixed(
        *("inna-1.9", "INNA, SGD's setting, lead 1.9", alone(l2_regularized(inna_torch.INNA))),
        {**CIFAR_SGD, "lead": 1.9, "l2": CIFAR_L2},
    ),
)

ROWS = {
    "gpt-2000": GPT,
    "mnist-20": MNIST,
    "gpt-10000": {
        **{name: row for name, row in GPT_CARRIED.items() if name not in ("innaprop-1", "innaprop-5")},
        **by_name(
            adamw("adamw-least", 1.3e-3, GPT_BETAS, GPT_DECAY, nanogpt),
            *(at_lr(GPT_CARRIED["innaprop-1.9"], name, lr) for name, lr in (("less", 2e-3), ("least", 1.3e-3))),
        ),
    },
    "cifar10-nin-5": CIFAR,
}
ON_REQUEST = ("gpt-10000", "cifar10-nin-5")
"""Tasks that take hours, run only if they are named."""
