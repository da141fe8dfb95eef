"""Derivatives of a loss along a direction split into groups, in torch.

With phi(mu) = L(theta + sum_s mu_s u_s), the forward pass depends on S scalar leaves mu_s. The S entries of phi' are
differentiated one by one, g_s with respect to mu_s, ..., mu_S only, and each graph is freed before the next is built,
so memory does not grow with S. The equations are in `inna_core.newton.step_sizes`.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from inna_core.newton import Summary, check_order, partition
from inna_torch.newton.pieces import Pieces, Substituted

Tensor = torch.Tensor


def summary(
    loss_fn: Callable[..., Any],
    params_or_groups: Any,
    direction: Any,
    *,
    groups: Any = "tensor",
    order: int = 3,
) -> Summary:
    """Return the exact derivatives of a loss along a direction, group by group: g, H and T.

    The loss sees the parameters theta_s + mu_s u_s, u being the direction, and is differentiated at mu = 0. Parameters,
    gradients and running statistics stay as they are. LayerNorm, RMSNorm, GroupNorm, BatchNorm and InstanceNorm are
    computed by elementary operations, attention by torch's unfused kernel, since the native kernels' third derivatives
    are wrong or missing.

    Args:
        loss_fn: returns the loss, a 0-d tensor. Either a closure without arguments over a model that holds the
            parameters (torch functions receive the moved parameters in place of the model's), or a function of the
            parameters in the container in which they are given, for `torch.func.functional_call`, say.
        params_or_groups: a module, a dict of tensors by name, a sequence of tensors (or of pairs of name and tensor),
            or a partition: a sequence of sequences of tensors, or of torch's param groups, each one group.
        direction: the tensors u in the same container, or all in a flat sequence; shapes as the parameters'. A
            step in this direction is theta - eta u, so a gradient is a direction.
        groups: partition of the tensors, see `inna_core.newton.partition`; ignored where a partition is given.
        order: 3, or 2 to leave the third derivatives out (T = 0).

    Returns:
        `Summary` of the gradient (S,), Hessian (S, S) and third derivatives (S,), in the parameters' dtype (float32 at
        least) on their device.

    Raises:
        ValueError: if shapes or the number of tensors differ, the loss is not a scalar, or order is not 2 or 3.
        TypeError: if a parameter is not a real floating-point tensor.
        NotImplementedError: if the loss calls an operation without correct derivatives, named in the message.
        RuntimeError: if the loss uses a parameter outside of torch functions, as in a custom autograd function.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import torch
        >>> from inna_core import newton_step_sizes
        >>> model = torch.nn.Linear(2, 1).double()
        >>> x, y = torch.ones(4, 2).double(), torch.zeros(4, 1).double()
        >>> loss = lambda: (model(x) - y).square().mean()
        >>> direction = torch.autograd.grad(loss(), list(model.parameters()))
        >>> eta = newton_step_sizes(*summary(loss, model, direction, groups="one"), damping=1.0).eta
        >>> bool(eta[0] > 0)  # the exact line search
        True
    """
    params, names, groups, rebuild = flatten(params_or_groups, groups)
    return summary_of(
        loss_fn, params, flat_direction(direction, params), partition_of(params, names, groups)[0], rebuild, order
    )


Rebuild = Callable[[list[Tensor]], Any]


def flatten(params_or_groups: Any, groups: Any) -> tuple[list[Tensor], list[str], Any, Rebuild]:
    """Return the tensors, their names, the partition, and a function that puts tensors into the same container."""
    if isinstance(params_or_groups, torch.nn.Module):
        params_or_groups = {name: p for name, p in params_or_groups.named_parameters() if p.requires_grad}
    if isinstance(params_or_groups, Mapping):
        names = [str(name) for name in params_or_groups]
        return list(params_or_groups.values()), names, groups, lambda new: dict(zip(params_or_groups, new, strict=True))
    if isinstance(params_or_groups, Tensor):
        return [params_or_groups], ["0"], groups, lambda new: new[0]
    entries = list(params_or_groups)
    if entries and all(isinstance(entry, Tensor) for entry in entries):
        return entries, [str(i) for i in range(len(entries))], groups, lambda new: new
    if entries and all(isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str) for entry in entries):
        return [p for _, p in entries], [name for name, _ in entries], groups, lambda new: new
    lists = [list(entry["params"]) if isinstance(entry, Mapping) else list(entry) for entry in entries]
    labels = [str(s) for s, group in enumerate(lists) for _ in group]
    flat = [p for group in lists for p in group]
    if not flat or not all(isinstance(p, Tensor) for p in flat):
        raise TypeError(
            f"Invalid params_or_groups: {params_or_groups!r} (expected a module, tensors, a dict or groups of tensors)"
        )

    def nested(new: list[Tensor]) -> list[list[Tensor]]:
        tensors = iter(new)
        return [[next(tensors) for _ in group] for group in lists]

    return flat, [str(i) for i in range(len(flat))], labels, nested


def partition_of(params: Sequence[Tensor], names: Sequence[str], groups: Any) -> tuple[list[int], list[str]]:
    """Return the group of each tensor, and the groups' labels."""
    for p in params:
        if not isinstance(p, Tensor) or not p.is_floating_point():
            raise TypeError(f"Invalid params: {type(p).__name__} {getattr(p, 'dtype', '')} (expected real tensors)")
    return partition(names, [p.dim() for p in params], groups)


def flat_direction(direction: Any, params: Sequence[Tensor]) -> list[Tensor]:
    """Return the direction as a list of tensors, one per parameter."""
    if isinstance(direction, Mapping):
        direction = list(direction.values())
    flat = (
        [direction]
        if isinstance(direction, Tensor)
        else [u for entry in direction for u in ([entry] if isinstance(entry, Tensor) else list(entry))]
    )
    if len(flat) != len(params):
        raise ValueError(f"Invalid direction: {len(flat)} tensors (expected {len(params)}, one per parameter)")
    for u, p in zip(flat, params, strict=True):
        if u.shape != p.shape:
            raise ValueError(f"Invalid direction: shape {tuple(u.shape)} (expected the parameter's, {tuple(p.shape)})")
    return flat


def summary_of(
    loss_fn: Callable[..., Any],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    group_of: Sequence[int],
    rebuild: Rebuild = list,
    order: int = 3,
) -> Summary:
    """Return the summary of a loss; params, direction and groups have been checked."""
    check_order(order)
    size = max(group_of) + 1
    dtype = max((p.dtype for p in params), key=lambda d: torch.finfo(d).bits)
    dtype = torch.float32 if torch.finfo(dtype).bits < 32 else dtype
    with torch.enable_grad():
        mu = [torch.zeros((), dtype=dtype, device=params[0].device, requires_grad=True) for _ in range(size)]
        moved = [
            p.detach() + mu[s].to(p.device) * u.detach().to(p.dtype)
            for p, u, s in zip(params, direction, group_of, strict=True)
        ]
        pieces = Pieces() if order == 3 else None
        loss = _loss(loss_fn, params, moved, dict(zip(map(id, moved), group_of, strict=True)), rebuild, pieces)
        gradient = _gradients(loss, mu, create_graph=True)
        rows, third = [], []
        for s in range(size):
            if pieces is not None:
                pieces.begin_row()
            row = _gradients(gradient[s], mu[s:], create_graph=pieces is not None)
            rows.append(torch.stack([torch.zeros_like(mu[s])] * s + [entry.detach() for entry in row]))
            third.append(torch.zeros_like(mu[s]) if pieces is None else pieces.third_derivative(row[0], mu[s], s))
    upper = torch.stack(rows)
    return Summary(torch.stack(list(gradient)).detach(), upper + upper.triu(1).T, torch.stack(third))


def _gradients(scalar: Tensor, mu: Sequence[Tensor], *, create_graph: bool) -> Sequence[Tensor]:
    if not scalar.requires_grad:  # a constant
        return [torch.zeros_like(m) for m in mu]
    return torch.autograd.grad(scalar, mu, create_graph=create_graph, retain_graph=True, materialize_grads=True)


def _loss(
    loss_fn: Callable[..., Any],
    params: Sequence[Tensor],
    moved: list[Tensor],
    groups: dict[int, int],
    rebuild: Rebuild,
    pieces: Pieces | None,
) -> Tensor:
    closure = _is_closure(loss_fn)
    with (
        eager_and_differentiable_twice(),
        Substituted({id(p): q for p, q in zip(params, moved, strict=True)} if closure else {}, groups, pieces),
    ):
        loss = loss_fn() if closure else loss_fn(rebuild(moved))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"Invalid loss_fn: it returned {loss!r:.80} (expected a tensor with one element)")
    if not loss.requires_grad:
        raise ValueError("Invalid loss_fn: its loss has no gradient (expected one that depends on the parameters)")
    loss = loss.reshape(())
    leaves = [p for p in params if p.requires_grad and p.is_leaf]
    if loss.requires_grad and leaves:
        gradients = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in gradients):
            raise RuntimeError(
                "Invalid loss_fn: it uses a parameter outside of torch functions, for example in a custom autograd "
                "function (expected a function that takes the parameters as its argument)"
            )
    return loss


def gradients_or_zeros(
    outputs: Sequence[Tensor],
    params: Sequence[Tensor],
    along: Sequence[Tensor] | None = None,
    create_graph: bool = False,
) -> list[Tensor]:
    """Return the gradients of outputs weighted by `along`, zero for parameters on which no output depends."""
    kept = [i for i, x in enumerate(outputs) if x.requires_grad]
    if not kept:
        return [torch.zeros_like(p) for p in params]
    weights = None if along is None else [along[i] for i in kept]
    arguments = {"create_graph": create_graph, "retain_graph": True, "materialize_grads": True, "allow_unused": True}
    return list(torch.autograd.grad([outputs[i] for i in kept], list(params), weights, **arguments))


@contextlib.contextmanager
def eager_and_differentiable_twice() -> Iterator[None]:
    """Run models uncompiled, so that modes intercept their calls, and attention by a kernel with second derivatives."""
    # if anything is compiled, dynamo has been imported
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    with eager, sdpa_kernel(SDPBackend.MATH):
        yield


def _is_closure(function: Callable[..., Any]) -> bool:
    """Return whether a function can be called without arguments."""
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()
    )
