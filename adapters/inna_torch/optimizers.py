"""The public torch optimizers, one small class each."""

from typing import Any

import inna_core
from inna_torch._shell import Elementwise


class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a torch optimizer.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; real floating point, any shape.
        lr: step size, >= 0 (default 0.1); a float or a one-element tensor.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step multiplies the parameter by 1 - lr * weight_decay (default 0).
        maximize: ascend instead of descend (default False).

    Raises:
        ValueError: if an argument is not finite or out of range.
        TypeError: if an argument has a wrong type, or a parameter is not real floating point.

    Reference: Castera et al., JMLR 22(134), 2021; the equations are in `inna_core.inna`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = INNA(model.parameters(), lr=0.1, alpha=0.5, beta=0.1)
        >>> optimizer.zero_grad()
        >>> model(torch.ones(4, 2)).square().mean().backward()
        >>> optimizer.step()
    """

    algorithm = inna_core.INNA

    def __init__(
        self,
        params: Any,
        lr: Any = inna_core.INNA.default_lr,
        alpha: float = inna_core.INNA.alpha,
        beta: float = inna_core.INNA.beta,
        weight_decay: float = inna_core.INNA.default_weight_decay,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, alpha=alpha, beta=beta, weight_decay=weight_decay, maximize=maximize)
