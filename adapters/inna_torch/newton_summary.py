"""Summary-Newton for torch: the derivatives of a loss along a direction split into groups.

With phi(mu) = L(theta + sum_s mu_s u_s), S leaves mu_s of rank 0 enter the forward pass. The S entries of phi' are
differentiated one by one, g_s with respect to mu_s, ..., mu_S only, and each graph is freed before the next is made:
the memory does not grow with S. The equations and the method are in `inna_core.newton_summary`.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import array_api_compat.torch as xp
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from inna_core._validation import checked_number
from inna_core.algorithm import Algorithm
from inna_core.newton_loop import (
    DAMPING,
    StepSizeRecord,
    StepSizes,
    StepSizeSettings,
    StepSizeState,
    checked_algorithm,
    direction,
    next_state,
    with_settings,
)
from inna_core.newton_summary import NewtonStatus, Summary, check_order, partition
from inna_torch.newton_derivatives import Pieces, Substituted

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
        loss_fn: the loss, a 0-d tensor. Either a closure without arguments, over a model that holds the parameters
            (nothing else needs to change: torch functions see the moved parameters in place of the model's), or a
            function of the parameters, in the container in which they are given (for
            `torch.func.functional_call`, say).
        params_or_groups: a module, a dict of tensors by name, a sequence of tensors (or of pairs of name and tensor),
            or a partition: a sequence of sequences of tensors, or of torch's param groups, each one group.
        direction: the tensors u in the same container, or all in a flat sequence; shapes as the parameters'. A
            step in this direction is theta - eta u, so a gradient is a direction.
        groups: partition of the tensors, see `inna_core.newton_summary.partition`; ignored where a partition is given.
        order: 3, or 2 to leave the third derivatives out (T = 0).

    Returns:
        `Summary` of the gradient (S,), Hessian (S, S) and third derivatives (S,), in the parameters' dtype (float32 at
        least) on their device.

    Raises:
        ValueError: if shapes or the number of tensors differ, the loss is not a scalar, or order is not 2 or 3.
        TypeError: if a parameter is not a real floating-point tensor.
        NotImplementedError: if the loss calls an operation without correct derivatives, named in the message.
        RuntimeError: if the loss uses a parameter where torch cannot see it (in a custom autograd function, say).

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
    params, names, groups, rebuild = flattened(params_or_groups, groups)
    return derivatives(
        loss_fn, params, flat_direction(direction, params), partition_of(params, names, groups)[0], rebuild, order
    )


Rebuild = Callable[[list[Tensor]], Any]


def flattened(params_or_groups: Any, groups: Any) -> tuple[list[Tensor], list[str], Any, Rebuild]:
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
    for p in params:
        if not isinstance(p, Tensor) or not p.is_floating_point():
            raise TypeError(f"Invalid params: {type(p).__name__} {getattr(p, 'dtype', '')} (expected real tensors)")
    return partition(names, [p.dim() for p in params], groups)


def flat_direction(direction: Any, params: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(direction, Mapping):
        direction = list(direction.values())
    flat = (
        [direction]
        if isinstance(direction, Tensor)
        else [u for entry in direction for u in ([entry] if isinstance(entry, Tensor) else list(entry))]
    )
    if len(flat) != len(params):
        raise ValueError(f"Invalid direction: {len(flat)} tensors (expected {len(params)}, one a parameter)")
    for u, p in zip(flat, params, strict=True):
        if u.shape != p.shape:
            raise ValueError(f"Invalid direction: shape {tuple(u.shape)} (expected the parameter's, {tuple(p.shape)})")
    return flat


def derivatives(
    loss_fn: Callable[..., Any],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    group_of: Sequence[int],
    rebuild: Rebuild,
    order: int = 3,
) -> Summary:
    """Return the summary of a loss; the arguments have been checked."""
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
    closure = takes_nothing(loss_fn)
    # a compiled model would be traced without regard to the mode below; dynamo is there if anything is compiled
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    with (
        eager,
        sdpa_kernel(SDPBackend.MATH),
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
        seen = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in seen):
            raise RuntimeError(
                "Invalid loss_fn: it uses a parameter where torch functions do not see it, in a custom autograd "
                "function, say (expected a function of the parameters, passed to it as its argument)"
            )
    return loss


def takes_nothing(function: Callable[..., Any]) -> bool:
    """Return whether a function is a closure: it can be called without arguments."""
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()
    )


_OWN = ("algorithm", "rule", "summary_loss", "on_refresh", "groups", "steps", "sizes", "group_of", "labels")
"""Attributes of `NewtonSummary` beside those of every torch optimizer."""


class NewtonSummary(Optimizer):
    """Trains without a learning rate: one step size per group, from the loss' second and third derivatives.

    Each step moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of `inna_core` at the
    gradients in ``p.grad``; every `period` steps eta is refreshed from the summary of ``summary_loss()`` along u, see
    `inna_core.newton_loop`. With ``INNA()`` or ``INNAprop()`` as the algorithm this is INNA (INNAprop) without a
    learning rate: alpha and beta are all that is left to choose.

    The damping is kept as the param groups' ``lr``, so that torch's schedulers work on it: `ReduceLROnPlateau` is the
    paper's plateau rule, since it shrinks the damping and, with it, the step sizes in use.

    Args:
        params: tensors, named tensors (whose names label the groups) or param groups.
        summary_loss: called without arguments every `period` steps, returns the loss on a batch of its own, without
            calling ``backward``; may be left out here and passed to `step`.
        algorithm: makes the direction (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3).
        groups: partition of the tensors, see `inna_core.newton_summary.partition`.
        on_refresh: called with a `inna_core.StepSizeRecord` after each refresh, for logs and plots.
        **settings: keywords of `inna_core.StepSizes`: ``damping_int``, ``period``, ``order``, ``average`` and others.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has a wrong type.

    Reference: Wolinski, arXiv 2312.03885; Castera et al., JMLR 22(134), 2021.

    Example:
        >>> import torch, inna_core
        >>> model = torch.nn.Linear(2, 1)
        >>> x, y = torch.randn(8, 2), torch.randn(8, 1)
        >>> loss = lambda: (model(x) - y).square().mean()
        >>> optimizer = NewtonSummary(model.named_parameters(), loss, inna_core.INNA())
        >>> for _ in range(20):
        ...     optimizer.zero_grad()
        ...     loss().backward()
        ...     _ = optimizer.step()
        >>> sorted(optimizer.step_sizes())
        ['bias', 'weight']
    """

    @with_settings
    def __init__(
        self,
        params: Any,
        summary_loss: Callable[[], Any] | None = None,
        algorithm: Algorithm | None = None,
        *,
        damping: float = DAMPING,
        groups: Any = "tensor",
        on_refresh: Callable[[StepSizeRecord], Any] | None = None,
        **settings: Unpack[StepSizeSettings],
    ) -> None:
        checked_number("damping", damping)
        self.algorithm: Algorithm = checked_algorithm(algorithm)
        self.rule = StepSizes(**settings)
        self.summary_loss, self.on_refresh = summary_loss, on_refresh
        self.groups = groups
        self.steps = 0
        self.sizes: StepSizeState | None = None
        super().__init__(params, {"lr": damping})
        self.group_of, self.labels = self._partition()

    def _partition(self) -> tuple[list[int], list[str]]:
        params = [p for group in self.param_groups for p in group["params"]]
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        return partition_of(params, names or [str(i) for i in range(len(params))], self.groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; before the first step only, since the summary's groups are fixed then.

        Raises:
            ValueError: if steps have been made, or as torch raises.
            TypeError: if a parameter is not a real floating-point tensor.
        """
        if self.steps:
            raise ValueError("Invalid param_group: added after the first step (expected all groups before it)")
        super().add_param_group(param_group)
        checked_number("lr", self.param_groups[-1]["lr"])
        if hasattr(self, "labels"):
            self.group_of, self.labels = self._partition()

    def step_sizes(self) -> dict[str, float]:
        """Return the step sizes lambda_1 eta_s in use, by label of the group; 0 before the first step."""
        if self.sizes is None:
            return dict.fromkeys(self.labels, 0.0)
        damping = {s: group["lr"] for s, group in zip(self.group_of, self._groups(), strict=True)}
        eta = self.rule.step_sizes(self.sizes).tolist()
        return {label: damping[s] * eta[s] for s, label in enumerate(self.labels)}

    def _groups(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups for _ in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, summary_loss: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: reevaluates the model, calls ``backward`` and returns the loss; called once.
            summary_loss: as in the constructor, for this step.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: if a summary is due and there is no summary_loss, or a damping has become invalid. Whatever is
                raised, no parameter and no state has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self._groups()
        params = [p for group in self.param_groups for p in group["params"]]
        dampings = [checked_number("lr", group["lr"]) for group in groups]
        algorithm: Any = self.algorithm
        states, directions = [], []
        for p in params:
            stored = self.state.get(p, {})
            states.append(algorithm.state_type(**stored) if stored else algorithm.init(p, xp))
            directions.append(
                torch.zeros_like(p) if p.grad is None else direction(algorithm, p.grad, states[-1], p, xp)
            )

        sizes = self.sizes
        due = self.rule.due(self.steps, 0 if sizes is None else int(sizes.refreshes))
        if due:
            summary_loss = self.summary_loss if summary_loss is None else summary_loss
            if summary_loss is None:
                raise ValueError("Invalid summary_loss: None (expected a closure, since a summary is due at this step)")
            found = derivatives(summary_loss, params, directions, self.group_of, lambda new: new, self.rule.order)
            # S numbers: the solver is faster and more precise where float64 is at home
            found = Summary(*(x.to("cpu", torch.float64) for x in found))
            sizes = self.rule.update(found, self.rule.init(found) if sizes is None else sizes)
        assert sizes is not None
        eta = self.rule.step_sizes(sizes).tolist()

        for p, s, damping, state, u in zip(params, self.group_of, dampings, states, directions, strict=True):
            if p.grad is None:
                continue
            step = damping * eta[s]
            state = next_state(algorithm, p.grad, state, p, max(step, 0.0), self.rule.velocity_cap, xp)
            p.sub_(step * u)
            self.state[p].update(state._asdict())
        self.sizes = sizes
        self.steps += 1
        if due and self.on_refresh is not None:
            self.on_refresh(
                StepSizeRecord(self.steps - 1, self.step_sizes(), float(sizes.radius), NewtonStatus(int(sizes.status)))
            )
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state and, under ``"summary"``, the number of steps and the state of the step sizes."""
        sizes = {} if self.sizes is None else {name: x.clone() for name, x in self.sizes._asdict().items()}
        return {**super().state_dict(), "summary": {"steps": self.steps, **sizes}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned: the run continues bit for bit.

        Raises:
            ValueError: if it has not the state of the step sizes, or of other groups.
        """
        own = dict(state_dict.get("summary", {}))
        steps = own.pop("steps", None)
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"Invalid state_dict: steps of the summary are {steps!r} (expected an int >= 0)")
        if own:
            self.rule.check_state(own, len(self.labels))
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "summary"})
        self.steps = steps
        self.sizes = StepSizeState(**{name: x.clone() for name, x in own.items()}) if own else None

    def __getstate__(self) -> dict[str, Any]:
        # torch's own leaves out what it does not know; for copies and pickles
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _OWN}}
