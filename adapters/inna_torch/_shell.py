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
from inna_core.compensation import compensated_increment
from inna_core.decay import update_with_decay


class Elementwise(Optimizer):
    """An optimizer whose update of a parameter needs that parameter's gradient and state alone.

    A public class names its `algorithm`; everything else follows. The entries of a param group are the algorithm's
    hyperparameters and ``lr``, ``weight_decay``, ``published_decay``, ``maximize``, ``kahan_sum``; those of a
    parameter's state are the fields of the algorithm's state, and ``compensation`` where the sum is compensated.
    """

    algorithm: ClassVar[type[Algorithm]]

    def __init__(self, params: Any, **defaults: Any) -> None:
        self._checked_algorithm(defaults)
        super().__init__(params, defaults)

    @classmethod
    def _checked_algorithm(cls, group: dict[str, Any]) -> Algorithm:
        """Return the algorithm of a param group, its entries validated."""
        for name in ("lr", "weight_decay"):
            # torch's schedulers accept one-element tensors of any rank; their value is left on its device, unread
            if not (isinstance(group[name], torch.Tensor) and group[name].numel() == 1):
                checked_number(name, group[name])
        for name, allowed in (
            ("maximize", (True, False)),
            ("published_decay", (True, False)),
            ("kahan_sum", (True, False, None)),
        ):
            if not any(group[name] is value for value in allowed):
                raise TypeError(f"Invalid {name}: {group[name]!r} (expected one of {', '.join(map(str, allowed))})")
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
            self._checked_algorithm({**self.defaults, **param_group})
            params = param_group["params"]
            if not isinstance(params, torch.Tensor | set):  # torch itself refuses sets
                params = param_group["params"] = list(params)  # a generator can be read once only
            for p in [params] if isinstance(params, torch.Tensor) else params:
                check_parameter(p[1] if isinstance(p, tuple) else p)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Called by `load_state_dict` and by unpickling; raising here leaves everything as it was.
        for group in state["param_groups"]:
            for name, value in state.get("defaults", getattr(self, "defaults", {})).items():
                group.setdefault(name, value)
            self._checked_algorithm(group)
            for p in group["params"]:
                self._check_state(p, state["state"].get(p, {}))
        super().__setstate__(state)

    def _check_state(self, p: torch.Tensor, state: dict[str, Any]) -> None:
        expected = set(self._fields())
        if state and set(state) - {"compensation"} != expected:
            raise ValueError(
                f"Invalid state_dict: a parameter's state has {sorted(state)} (expected {sorted(expected)})"
            )
        for name, value in state.items():
            if name != "step" and value.shape != p.shape:
                raise ValueError(
                    f"Invalid state_dict: {name} of shape {tuple(value.shape)} (expected {tuple(p.shape)}, as the "
                    "parameter)"
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
                if name in self._fields() and name != "step" and compute_dtype(p) != p.dtype:
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
        ready = [(group, self._checked_algorithm(group), self._with_gradient(group)) for group in self.param_groups]
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
        stored = self._stored_state(p, group, algorithm)
        grad, theta = p.grad.to(dtype), p.to(dtype)  # type: ignore[union-attr]
        compensation = stored["compensation"].to(dtype) if "compensation" in stored else None
        delta, state = update_with_decay(
            algorithm,
            -grad if group["maximize"] else grad,
            algorithm.state_type(**{name: stored[name].to(dtype) for name in self._fields()}),
            theta if compensation is None else theta + compensation,
            scalar(group["lr"], dtype),
            scalar(group["weight_decay"], dtype),
            published=group["published_decay"],
            xp=xp,
        )
        if compensation is not None:
            delta, compensation = compensated_increment(delta, compensation, theta, lambda x: x.to(p.dtype).to(dtype))
        new = {**state._asdict(), **({} if compensation is None else {"compensation": compensation})}
        torch._foreach_copy_([p, *(stored[name] for name in new)], [theta + delta, *new.values()])

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return cls.algorithm.state_type._fields  # type: ignore[attr-defined]

    def _stored_state(self, p: torch.Tensor, group: dict[str, Any], algorithm: Algorithm) -> dict[str, Any]:
        """Return the state of a parameter, made when it is first asked for."""
        stored = self.state[p]
        if not stored:
            stored.update(algorithm.init(p.detach().to(compute_dtype(p)), xp=xp)._asdict())
            if "step" in stored:  # where torch keeps it: counting on the device would cost a kernel
                stored["step"] = torch.zeros((), dtype=torch.float32)
        if not compensates(p, group):
            stored.pop("compensation", None)
        elif "compensation" not in stored:
            stored["compensation"] = torch.zeros_like(p, requires_grad=False)
        return stored


def check_parameter(p: Any) -> None:
    if isinstance(p, torch.Tensor) and not p.is_floating_point():
        raise TypeError(
            f"Invalid params: a tensor of dtype {p.dtype} (expected a real floating-point dtype; "
            "optimize torch.view_as_real(z) in place of a complex z)"
        )


def compute_dtype(p: torch.Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state and arithmetic."""
    return torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype


def compensates(p: torch.Tensor, group: dict[str, Any]) -> bool:
    return compute_dtype(p) != p.dtype if group["kahan_sum"] is None else group["kahan_sum"]


def scalar(value: Any, dtype: torch.dtype) -> Any:
    return value.reshape(()).to(dtype) if isinstance(value, torch.Tensor) else float(value)
