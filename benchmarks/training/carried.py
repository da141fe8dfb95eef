"""Settings of SGD and AdamW, carried over to INNA and INNAprop.

Given lr eta, momentum m and lead l, with gamma the step size of the papers:

|          | gamma              | alpha         | beta    | decay of theta in a step |
|----------|--------------------|---------------|---------|--------------------------|
| INNA     | sqrt(eta)          | (1 - m)/gamma | l gamma | eta lambda               |
| INNAprop | sqrt(eta (1 - m))  | (1 - m)/gamma | l gamma | eta lambda               |

At a constant eta, l = 1 makes INNA the heavy ball and l = 1 + m Nesterov's momentum as torch.optim.SGD has it; l = 1
makes INNAprop AdamW without the bias correction of its first moment. gamma, alpha and beta follow from eta at every
step, so a schedule of eta changes neither momentum nor lead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import inna_torch

SMALLEST = 1e-24
"""In place of eta = 0, where alpha is infinite."""


@dataclass(frozen=True)
class Carried:
    """INNA or INNAprop as an optimizer with lr, momentum and lead.

    Attributes:
        optimizer: of inna_torch.
        adaptive: whether it is INNAprop, whose lr is Adam's.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    adaptive: bool

    def entries(self, lr: float, momentum: float, lead: float, weight_decay: float) -> dict[str, float]:
        """Return the optimizer's own lr, alpha, beta and weight decay."""
        eta = max(lr, SMALLEST)
        gamma = math.sqrt(eta * (1 - momentum) if self.adaptive else eta)
        return {
            "lr": gamma,
            "alpha": (1 - momentum) / gamma,
            "beta": lead * gamma,
            "weight_decay": weight_decay * eta / gamma,
        }

    def __call__(
        self, params: Any, *, lr: float, momentum: float, lead: float, weight_decay: float = 0.0, **arguments: Any
    ) -> torch.optim.Optimizer:
        """Return the optimizer. Its param groups hold eta as "lr" and lambda as "weight_decay" between steps.

        Args:
            params: tensors or param groups.
            lr: eta.
            momentum: m.
            lead: l.
            weight_decay: lambda.
            arguments: the optimizer's others.
        """
        optimizer = self.optimizer(params, lr=lr, weight_decay=weight_decay, **arguments)
        given: list[dict[str, float]] = []

        def convert(*_: Any) -> None:
            given[:] = [{name: group[name] for name in ("lr", "weight_decay")} for group in optimizer.param_groups]
            for group, own in zip(optimizer.param_groups, given, strict=True):
                group.update(self.entries(own["lr"], momentum, lead, own["weight_decay"]))

        def restore(*_: Any) -> None:
            for group, own in zip(optimizer.param_groups, given, strict=True):
                group.update(own)

        optimizer.register_step_pre_hook(convert)
        optimizer.register_step_post_hook(restore)
        return optimizer


inna = Carried(inna_torch.INNA, adaptive=False)
innaprop = Carried(inna_torch.INNAprop, adaptive=True)
