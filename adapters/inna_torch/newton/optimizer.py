"""Summary-Newton as a torch optimizer."""

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.optim import Optimizer

from inna_core import newton
from inna_core._validation import checked_number
from inna_core.algorithm import Algorithm
from inna_core.newton import NewtonStatus, StepSizeRecord, StepSizes, StepSizeState, Summary
from inna_torch.newton.derivatives import partition_of, summary_of

_ATTRIBUTES = ("algorithm", "rule", "summary_loss", "on_refresh", "groups", "steps", "sizes", "group_of", "labels")
"""Attributes of `NewtonSummary` that torch's own ``__getstate__`` leaves out."""


class NewtonSummary(Optimizer):
    """Trains without a learning rate: one step size per group, from the loss' second and third derivatives.

    Each step moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of `inna_core` at the
    gradients in ``p.grad``. Every `period` steps eta is refreshed from the summary of ``summary_loss()`` along u, see
    `inna_core.newton.controller`. With ``INNA()`` or ``INNAprop()`` as the algorithm this is INNA (INNAprop) without a
    learning rate: only alpha and beta are left to choose.

    The damping is the param groups' ``lr``, so torch's schedulers work on it: `ReduceLROnPlateau` is the paper's
    plateau rule.

    Args:
        params: tensors, named tensors (whose names label the groups) or param groups.
        summary_loss: called without arguments every `period` steps, returns the loss on a batch of its own, without
            calling ``backward``; may be left out here and passed to `step`.
        algorithm: gives the direction u (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3).
        rule: how step sizes follow from the summaries, as in ``StepSizes(period=5)``.
        groups: partition of the tensors, see `inna_core.newton.partition`.
        on_refresh: called with a `inna_core.StepSizeRecord` after each refresh, for logs and plots.

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

    def __init__(
        self,
        params: Any,
        summary_loss: Callable[[], Any] | None = None,
        algorithm: Algorithm | None = None,
        *,
        damping: float = newton.DAMPING,
        rule: StepSizes = StepSizes(),
        groups: Any = "tensor",
        on_refresh: Callable[[StepSizeRecord], Any] | None = None,
    ) -> None:
        checked_number("damping", damping)
        self.algorithm: Algorithm = newton.checked_algorithm(algorithm)
        self.rule = newton.checked_rule(rule)
        self.summary_loss, self.on_refresh = summary_loss, on_refresh
        self.groups = groups
        self.steps = 0
        self.sizes: StepSizeState | None = None
        super().__init__(params, {"lr": damping})
        self.group_of, self.labels = self._partition()

    def _partition(self) -> tuple[list[int], list[str]]:
        params = [p for group in self.param_groups for p in group["params"]]
        if len(set(params)) < len(params):
            raise ValueError("Invalid params: the same tensor is given twice (expected every tensor once)")
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        return partition_of(params, names or [str(i) for i in range(len(params))], self.groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; before the first step only, since the summary's groups are fixed from then on.

        Args:
            param_group: ``params``, and a ``lr`` (the damping) that differs from the constructor's.

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
        damping = {s: group["lr"] for s, group in zip(self.group_of, self._group_of_each_param(), strict=True)}
        eta = self.rule.step_sizes(self.sizes).tolist()
        return {label: damping[s] * eta[s] for s, label in enumerate(self.labels)}

    def _group_of_each_param(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups for _ in group["params"]]

    def _state_of(self, p: torch.Tensor) -> Any:
        state_type: Any = self.algorithm.state_type
        stored = self.state.get(p, {})  # may hold entries of others
        if all(name in stored for name in state_type._fields):
            return state_type(*(stored[name] for name in state_type._fields))
        return self.algorithm.init(p, xp)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, summary_loss: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: reevaluates the model, calls ``backward`` and returns the loss; called once.
            summary_loss: as in the constructor, for this step.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: if a summary is due and there is no summary_loss, or a damping has become invalid. In any
                case no parameter and no state has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self._group_of_each_param()
        params = [p for group in self.param_groups for p in group["params"]]
        dampings = [checked_number("lr", group["lr"]) for group in groups]
        algorithm: Any = self.algorithm
        states = [self._state_of(p) for p in params]
        directions = [
            torch.zeros_like(p) if p.grad is None else newton.direction(algorithm, p.grad, state, p, xp)
            for p, state in zip(params, states, strict=True)
        ]

        sizes = self.sizes
        due = self.rule.due(self.steps, 0 if sizes is None else int(sizes.refreshes))
        if due:
            summary_loss = self.summary_loss if summary_loss is None else summary_loss
            if summary_loss is None:
                raise ValueError("Invalid summary_loss: None (expected a closure, since a summary is due at this step)")
            along = summary_of(summary_loss, params, directions, self.group_of, order=self.rule.order)
            # a small problem: faster on the CPU, and not every accelerator has float64
            along = Summary(*(x.cpu().double() for x in along))
            sizes = self.rule.update(along, self.rule.init(along) if sizes is None else sizes)
        assert sizes is not None
        eta = self.rule.step_sizes(sizes).tolist()

        for p, s, damping, state, u in zip(params, self.group_of, dampings, states, directions, strict=True):
            if p.grad is None:
                continue
            step = newton.trusted_step(damping * eta[s], u, p, self.rule.trust, xp)
            state = newton.next_state(algorithm, p.grad, state, p, max(step, 0.0), self.rule.velocity_cap, xp)
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

        Args:
            state_dict: from an optimizer with the same parameters, groups, algorithm and rule.

        Raises:
            ValueError: if it has no state of the step sizes, or one of other groups or another window.
        """
        sizes = dict(state_dict.get("summary", {}))
        steps = sizes.pop("steps", None)
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"Invalid state_dict: steps of the summary are {steps!r} (expected an int >= 0)")
        if sizes:
            self.rule.check_state(sizes, len(self.labels))
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "summary"})
        self.steps = steps
        self.sizes = StepSizeState(**{name: x.clone() for name, x in sizes.items()}) if sizes else None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _ATTRIBUTES}}
