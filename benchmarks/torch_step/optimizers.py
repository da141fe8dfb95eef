"""The optimizers that are timed: ours, torch's, and the published recurrences as plain loops."""

from collections.abc import Callable
from typing import Any

import torch

import inna_torch


class PublishedINNA(torch.optim.Optimizer):
    """The paper's recurrence in psi form, one tensor after the other, out of place."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "alpha": 0.5, "beta": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            lr, alpha, beta = group["lr"], group["alpha"], group["beta"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["psi"] = (1 - alpha * beta) * p
                phase = (1 / beta - alpha) * p - 1 / beta * state["psi"]
                state["psi"] = state["psi"] + lr * phase
                p.add_(lr * (phase - beta * p.grad))


class PublishedINNAprop(torch.optim.Optimizer):
    """INNAprop's recurrence in psi form, one tensor after the other, in place, the decay before the step."""

    def __init__(self, params: Any) -> None:
        defaults = {"lr": 1e-3, "alpha": 0.1, "beta": 0.9, "sigma": 0.999, "eps": 1e-8, "weight_decay": 0.01}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            lr, alpha, beta, sigma = group["lr"], group["alpha"], group["beta"], group["sigma"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, psi=(1 - alpha * beta) * p, second_moment=torch.zeros_like(p))
                state["step"] += 1
                psi, second_moment = state["psi"], state["second_moment"]
                p.mul_(1 - lr * group["weight_decay"])
                second_moment.mul_(sigma).addcmul_(p.grad, p.grad, value=1 - sigma)
                scale = (second_moment / (1 - sigma ** state["step"])).sqrt_().add_(group["eps"])
                psi.mul_(1 - lr / beta).add_(p, alpha=lr * (1 / beta - alpha))
                p.mul_(1 + lr * (1 - alpha * beta) / (beta - lr)).add_(psi, alpha=-lr / (beta - lr))
                p.addcdiv_(p.grad, scale, value=-lr * beta)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD fused": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, fused=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, foreach=True),
    "AdamW": torch.optim.AdamW,
    "AdamW fused": lambda p: torch.optim.AdamW(p, fused=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "published INNA": PublishedINNA,
    "published INNAprop": PublishedINNAprop,
    "INNA": lambda p: inna_torch.INNA(p, 0.05),
    "INNA foreach": lambda p: inna_torch.INNA(p, 0.05, foreach=True),
    "INNA compiled": lambda p: inna_torch.INNA(p, 0.05, compiled=True),
    "INNAprop": inna_torch.INNAprop,
    "INNAprop foreach": lambda p: inna_torch.INNAprop(p, foreach=True),
    "INNAprop compiled": lambda p: inna_torch.INNAprop(p, compiled=True),
    "INNAprop published_decay": lambda p: inna_torch.INNAprop(p, published_decay=True),
    "INNAprop published_decay compiled": lambda p: inna_torch.INNAprop(p, published_decay=True, compiled=True),
}
