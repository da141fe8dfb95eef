"""The public torch optimizers, one small class each."""

from typing import Any

import inna_core
from inna_torch._optimizer import Elementwise
from inna_torch._scaled_state import ScaledState

FLAGS_DOCUMENTATION = """
        published_decay: let the decay act on the velocity too, as the published code of INNAprop does (default False).
            It repeats that code's trajectories; the decay is then about 1 / (alpha beta) times as strong.
        maximize: ascend instead of descend (default False).
        kahan_sum: compensate the rounding of parameter updates, at the cost of one more buffer like the parameter
            (default None: on for parameters in 16 bits, off otherwise). The state of such parameters is in 32 bits.
        foreach: update lists of tensors in multi-tensor calls (default None: let the optimizer choose). If this or
            fused is False and the other None, the core's own update runs, operation by operation.
        fused: use torch's fused kernels wherever they are accurate, and warn where they are not (default None: use them
            without a warning).
        compiled: compile the update with inductor into one loop over memory, once for tensors of all lengths and all
            values of the hyperparameters (default False). INNA uses it where the fused kernel does not apply: for
            parameters in 16 bits and kahan_sum. It needs a compiler (on a CPU, a C++ compiler) and some seconds at
            the first step.
        capturable: make steps that a CUDA graph can capture; parameters on an accelerator only (default False).
        differentiable: let autograd differentiate through the step (default False).

    Raises:
        ValueError: if an argument is not finite or out of range, momentum is given beside alpha or beta, or a parameter
            is given twice.
        TypeError: if an argument has a wrong type, or a parameter is not floating point or complex.
        RuntimeError: if ``fused`` is True and a parameter is on a device without such kernels.
"""


def shared_documentation(kind: Any) -> Any:
    """Insert the documentation of the shared flags into the docstring of a class."""
    kind.__doc__ = kind.__doc__.replace("{flags}", FLAGS_DOCUMENTATION.strip())
    return kind


def arguments(scope: dict[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments, given its locals."""
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}


def without_betas(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a group, with AdamW's ``betas`` under the names momentum and sigma."""
    others = {name: value for name, value in entries.items() if name != "betas"}
    if (betas := entries.get("betas")) is None:
        return others
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"Invalid betas: {betas!r} (expected a pair of numbers, momentum and sigma)")
    for name, default in ("momentum", None), ("sigma", inna_core.INNAprop.sigma):
        if others.get(name, default) != default:
            raise ValueError(f"Invalid betas: {betas!r} (expected None where {name} is given)")
    return {**others, "momentum": betas[0], "sigma": betas[1]}


@shared_documentation
class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a torch optimizer.

    By default steps run on torch's fused SGD kernel, with arguments for which it computes INNA.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; floating point or complex.
        lr: step size, >= 0 (default 0.1); a float or a one-element tensor. With momentum it is that of SGD. It is
            stable below `inna_core.dynamics.largest_stable_lr`, given the largest curvature.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step subtracts lr * weight_decay * parameter (default 0).
        momentum: in [0, 1), in place of alpha and beta (default None); keep SGD's momentum and lr
            (`inna_core.coefficients`). Schedules of lr leave momentum and lead alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum, which at a constant
            lr makes the steps of SGD with Nesterov's momentum).
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
    mapping_type = ScaledState

    def __init__(
        self,
        params: Any,
        lr: Any = inna_core.INNA.default_lr,
        alpha: float | None = None,
        beta: float | None = None,
        weight_decay: float = inna_core.INNA.default_weight_decay,
        *,
        momentum: float | None = None,
        lead: float | None = None,
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; ``betas`` is refused. See `Elementwise.add_param_group`."""
        if isinstance(param_group, dict) and (betas := param_group.get("betas")) is not None:
            raise TypeError(
                f"Invalid betas: {betas!r} (expected momentum in its place: INNA has no second moment, INNAprop has)"
            )
        super().add_param_group(param_group)


@shared_documentation
class INNAprop(Elementwise):
    """INNAprop, INNA with RMS scaling of the gradient, as a torch optimizer.

    By default steps on a CPU run on torch's fused AdamW and SGD kernels, with arguments for which these compute
    INNAprop. ``compiled=True`` is faster for large tensors.

    Args:
        params: tensors, named tensors or param groups, as for any torch optimizer; floating point or complex.
        lr: step size, >= 0 (default 1e-3); a float or a one-element tensor. With momentum it is that of AdamW.
        alpha: viscous damping, >= 0 (default 0.1).
        beta: Newtonian damping, > 0 (default 0.9).
        sigma: decay of the second moment, AdamW's second beta, in [0, 1) (default 0.999).
        eps: added to the root of the second moment, > 0 (default 1e-8).
        weight_decay: decoupled decay: each step subtracts lr * weight_decay * parameter (default 0.01).
        momentum: in [0, 1), in place of alpha and beta (default None): AdamW's first beta; keep its lr and weight decay
            (`inna_core.coefficients`). Schedules of lr leave momentum and lead alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum).
        betas: momentum and sigma, as AdamW takes them (default None).
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
        alpha: float | None = None,
        beta: float | None = None,
        sigma: float = inna_core.INNAprop.sigma,
        eps: float = inna_core.INNAprop.eps,
        weight_decay: float = inna_core.INNAprop.default_weight_decay,
        *,
        momentum: float | None = None,
        lead: float | None = None,
        betas: tuple[float, float] | None = None,
        published_decay: bool = False,
        maximize: bool = False,
        kahan_sum: bool | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        compiled: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(**without_betas(arguments(locals())))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; ``betas`` stands for momentum and sigma.

        See `Elementwise.add_param_group`.
        """
        super().add_param_group(without_betas(param_group) if isinstance(param_group, dict) else param_group)
