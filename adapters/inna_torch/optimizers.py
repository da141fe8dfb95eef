"""The public torch optimizers, one small class each."""

from typing import Any

import inna_core
from inna_torch._optimizer import Elementwise, arguments, shared_documentation
from inna_torch._scaled_state import ScaledState


@shared_documentation
class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a torch optimizer.

    By default steps take torch's fused SGD kernel, with the arguments that make INNA of it.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; floating point or complex.
        lr: step size, >= 0 (default 0.1); a float or a one-element tensor.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step takes lr * weight_decay of the parameter away (default 0).
        {flags}

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
    state_type = ScaledState

    def __init__(
        self,
        params: Any,
        lr: Any = inna_core.INNA.default_lr,
        alpha: float = inna_core.INNA.alpha,
        beta: float = inna_core.INNA.beta,
        weight_decay: float = inna_core.INNA.default_weight_decay,
        *,
        published_decay: bool = False,
        maximize: bool = False,
        kahan_sum: bool | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        compiled: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(**arguments(locals()))


@shared_documentation
class INNAprop(Elementwise):
    """INNAprop, INNA with RMS scaling of the gradient, as a torch optimizer.

    By default steps on a CPU take torch's fused AdamW and SGD kernels, with the arguments that make INNAprop of them.
    ``compiled=True`` is faster for large tensors.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; floating point or complex.
        lr: step size, >= 0 (default 1e-3); a float or a one-element tensor.
        alpha: viscous damping, >= 0 (default 0.1).
        beta: Newtonian damping, > 0 (default 0.9).
        sigma: decay of the second moment, AdamW's second beta, in [0, 1) (default 0.999).
        eps: added to the root of the second moment, > 0 (default 1e-8).
        weight_decay: decoupled decay: each step takes lr * weight_decay of the parameter away (default 0.01).
        {flags}

    Reference: Bolte et al., arXiv:2410.05871, 2024; the equations are in `inna_core.innaprop`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = INNAprop(model.parameters(), lr=1e-3, alpha=2.0, beta=2.0)
        >>> optimizer.zero_grad()
        >>> model(torch.ones(4, 2)).square().mean().backward()
        >>> optimizer.step()
    """

    algorithm = inna_core.INNAprop

    def __init__(
        self,
        params: Any,
        lr: Any = inna_core.INNAprop.default_lr,
        alpha: float = inna_core.INNAprop.alpha,
        beta: float = inna_core.INNAprop.beta,
        sigma: float = inna_core.INNAprop.sigma,
        eps: float = inna_core.INNAprop.eps,
        weight_decay: float = inna_core.INNAprop.default_weight_decay,
        *,
        published_decay: bool = False,
        maximize: bool = False,
        kahan_sum: bool | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        compiled: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(**arguments(locals()))
