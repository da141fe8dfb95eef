"""The one torch shell: it turns an algorithm of `inna_core` into a `torch.optim.Optimizer`."""

from collections.abc import Callable
from dataclasses import fields
from itertools import chain
from typing import Any, ClassVar

import array_api_compat.torch as xp
import torch
from torch.optim import Optimizer

from inna_core._checks import checked_number
from inna_core.algorithm import Algorithm


class Elementwise(Optimizer):
    """An optimizer whose update of a parameter needs that parameter's gradient and state alone.

    A public class names its `algorithm`; everything else follows. The entries of a param group are the algorithm's
    hyperparameters and ``lr``, ``weight_decay``, ``maximize``; those of a parameter's state are the fields of the
    algorithm's state.
    """

    algorithm: ClassVar[type[Algorithm]]

    def __init__(self, params: Any, **defaults: Any) -> None:
        self._check_hyperparameters(defaults)
        super().__init__(params, defaults)

    @classmethod
    def _check_hyperparameters(cls, group: dict[str, Any]) -> Algorithm:
        """Return the algorithm of a param group, its entries validated."""
        for name in ("lr", "weight_decay"):
            # torch's schedulers accept one-element tensors of any rank; their value is left on its device, unread
            if not (isinstance(group[name], torch.Tensor) and group[name].numel() == 1):
                checked_number(name, group[name])
        if not isinstance(group["maximize"], bool):
            raise TypeError(f"Invalid maximize: {group['maximize']!r} (expected True or False)")
        return cls.algorithm(**{field.name: group[field.name] for field in fields(cls.algorithm)})  # type: ignore[arg-type]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            param_group: ``params`` (tensors, or pairs of a name and a tensor), and any entry that differs from the
                defaults given to the constructor.

        Raises:
            TypeError: if a parameter is not a real floating-point tensor, or an entry has a wrong type.
            ValueError: if an entry is out of range, or a parameter is already in another group.
        """
        if isinstance(param_group, dict):
            self._check_hyperparameters({**self.defaults, **param_group})
            params = param_group["params"]
            # a generator can be read once only
            params = param_group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
            for p in (entry[1] if isinstance(entry, tuple) else entry for entry in params):
                if isinstance(p, torch.Tensor) and not p.is_floating_point():
                    raise TypeError(
                        f"Invalid params: a tensor of dtype {p.dtype} (expected a real floating-point dtype; "
                        "optimize torch.view_as_real(z) in place of a complex z)"
                    )
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            for name, value in self.defaults.items() if hasattr(self, "defaults") else ():
                group.setdefault(name, value)
            self._check_hyperparameters(group)
            for p in group["params"]:
                self._check_state(p, state["state"].get(p, {}))
        super().__setstate__(state)

    def _check_state(self, p: torch.Tensor, state: dict[str, Any]) -> None:
        names = self.algorithm.state_type._fields  # type: ignore[attr-defined]
        if state and set(state) != set(names):
            raise ValueError(f"Invalid state_dict: a parameter's state has {sorted(state)} (expected {sorted(names)})")
        for name, value in state.items():
            if name != "step" and value.shape != p.shape:
                raise ValueError(
                    f"Invalid state_dict: {name} of shape {tuple(value.shape)} for a parameter of shape {tuple(p.shape)}"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned; a state that does not fit changes nothing.

        Args:
            state_dict: from an optimizer of the same class, with the same groups and shapes.

        Raises:
            ValueError: if groups, names, shapes or values do not fit.
        """
        final: dict[str, Any] = {}
        # Registered last, so that it sees what the user's own hooks made of the state.
        handle = self.register_load_state_dict_pre_hook(lambda _, loaded: final.update(loaded))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        # torch casts state to the dtype of the parameter; ours is wider where the parameter is narrow.
        saved = chain.from_iterable(group["params"] for group in final["param_groups"])
        own = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, p in zip(saved, own, strict=True):
            for name, value in final["state"].get(index, {}).items():
                if name != "step" and self.state[p][name].dtype != compute_dtype(p):
                    self.state[p][name] = value.to(device=p.device, dtype=compute_dtype(p), copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: reevaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: if a gradient is sparse. Whatever is raised, no parameter and no state has changed.
            TypeError, ValueError: if an entry of a param group has become invalid.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        ready = [(group, self._check_hyperparameters(group), self._with_gradient(group)) for group in self.param_groups]
        for group, algorithm, params in ready:
            for p in params:
                self._update(p, group, algorithm)
        return loss

    def _with_gradient(self, group: dict[str, Any]) -> list[torch.Tensor]:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if p.grad.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients (layout {p.grad.layout})")
        return params

    def _update(self, p: torch.Tensor, group: dict[str, Any], algorithm: Algorithm) -> None:
        dtype = compute_dtype(p)
        lr, weight_decay = (in_dtype(group[name], dtype) for name in ("lr", "weight_decay"))
        grad = p.grad.to(dtype)  # type: ignore[union-attr]
        theta = p.to(dtype)
        stored = self.state[p]
        state = algorithm.state_type(**stored) if stored else algorithm.init(theta, xp=xp)
        delta, state = algorithm.update(-grad if group["maximize"] else grad, state, theta, lr, xp=xp)
        if isinstance(weight_decay, torch.Tensor) or weight_decay != 0:
            theta = theta * (1 - lr * weight_decay)
        p.copy_(theta + delta)
        stored.update(state._asdict())


def compute_dtype(p: torch.Tensor) -> torch.dtype:
    return torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    return value.reshape(()).to(dtype) if isinstance(value, torch.Tensor) else value
