"""The public torch optimizers, one small class each."""

from typing import Any

import inna_core
from inna_torch._optimizer import Elementwise
from inna_torch._scaled_state import ScaledState


class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a torch optimizer.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; real or complex floating point, any
            shape. Real and imaginary parts are updated as two real parameters.
        lr: step size, >= 0 (default 0.1); a float or a one-element tensor.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step takes lr * weight_decay of the parameter away (default 0).
        published_decay: let the decay act on the velocity too, as the repository of INNAprop does (default False;
            see `inna_core.weight_decay`). The decay is then about 1 / (alpha beta) times as strong.
        maximize: ascend instead of descend (default False).
        kahan_sum: compensate the rounding of parameter updates, at the cost of one more buffer like the parameter
            (default None: on for float16 and bfloat16 parameters, off otherwise).
        foreach: update lists of tensors in multi-tensor calls, in place (default None: let the optimizer choose).
        fused: use torch's SGD kernel, with the arguments that make INNA of it, wherever it applies, and warn where it
            does not (default None: use it wherever it applies). False for this or for foreach, the other left None,
            means one tensor after the other.
        compiled: have torch.compile make one loop over memory of the update, once for tensors of all lengths, and use
            it for float16, bfloat16 and kahan_sum, where torch's SGD kernel cannot be used (default False). It needs a
            compiler (on a CPU, of C++) and some seconds at the first step; lr, alpha, beta and the like may change
            from step to step.
        capturable: make steps that a CUDA graph can record; parameters on an accelerator only (default False).
        differentiable: let autograd go through the step (default False).

    The state of float16 and bfloat16 parameters is float32.

    Raises:
        ValueError: if an argument is not finite or out of range.
        TypeError: if an argument has a wrong type, or a parameter is not floating point.

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
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            beta=beta,
            weight_decay=weight_decay,
            published_decay=published_decay,
            maximize=maximize,
            kahan_sum=kahan_sum,
            foreach=foreach,
            fused=fused,
            compiled=compiled,
            capturable=capturable,
            differentiable=differentiable,
        )


class INNAprop(Elementwise):
    """INNAprop, INNA with RMS scaling of the gradient, as a torch optimizer.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; real or complex floating point, any
            shape. Real and imaginary parts are updated as two real parameters.
        lr: step size, >= 0 (default 1e-3); a float or a one-element tensor.
        alpha: viscous damping, >= 0 (default 0.1).
        beta: Newtonian damping, > 0 (default 0.9).
        sigma: decay of the second moment, in [0, 1) (default 0.999).
        eps: added to the root of the second moment, > 0 (default 1e-8).
        weight_decay: decoupled decay: each step takes lr * weight_decay of the parameter away (default 0.01).
        published_decay: let the decay act on the velocity too, as the published code does (default False). It repeats
            that code's trajectories; the decay is then about 1 / (alpha beta) times as strong as weight_decay says.
        maximize: ascend instead of descend (default False).
        kahan_sum: compensate the rounding of parameter updates, at the cost of one more buffer like the parameter
            (default None: on for float16 and bfloat16 parameters, off otherwise).
        foreach: update lists of tensors in multi-tensor calls, block by block (default None: let the optimizer
            choose). False for this or for fused, the other left None, means one tensor after the other.
        fused: use torch's AdamW and SGD kernels, with the arguments that make INNAprop of them, wherever that applies
            (float32 and float64 on a CPU), and warn where it does not (default None: use them wherever they apply).
        compiled: have torch.compile make one loop over memory of the update, once for tensors of all lengths, and use
            it for all but small tensors (default False). It needs a compiler (on a CPU, of C++) and some seconds at
            the first step; lr, alpha, beta and the like may change from step to step. The fastest path, above all for
            float16 and bfloat16.
        capturable: make steps that a CUDA graph can record; parameters on an accelerator only (default False).
        differentiable: let autograd go through the step (default False).

    The state of float16 and bfloat16 parameters is float32.

    Raises:
        ValueError: if an argument is not finite or out of range.
        TypeError: if an argument has a wrong type, or a parameter is not floating point.

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
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            beta=beta,
            sigma=sigma,
            eps=eps,
            weight_decay=weight_decay,
            published_decay=published_decay,
            maximize=maximize,
            kahan_sum=kahan_sum,
            foreach=foreach,
            fused=fused,
            compiled=compiled,
            capturable=capturable,
            differentiable=differentiable,
        )
