"""A parameter's state while torch's fused kernel keeps the velocity in units of its own (`inna_core.sgd_kernel`)."""

from collections.abc import Iterator
from typing import Any

import torch


class KernelState(dict[str, Any]):
    """A dict like any parameter's state, except that between kernel steps "velocity" is held times `unit`.

    Whoever reads it finds the true velocity: reading converts it in place. What has been read is left alone from then
    on, so that nobody holds a tensor that turns into other units: the next kernel step goes on with a copy.

    Attributes:
        unit: of the velocity that the kernel wrote; None where it is the true one, and others may hold it.
        at_rest: whether the velocity is zero, and nobody has seen it.
    """

    __slots__ = ("at_rest", "unit")

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.unit: float | None = None
        self.at_rest = False

    def buffer(self, unit: float) -> torch.Tensor:
        """Return the tensor for the kernel, which holds the velocity times `unit`."""
        velocity = super().__getitem__("velocity")
        if self.unit is None and not self.at_rest:
            velocity = velocity * unit
            super().__setitem__("velocity", velocity)
        self.unit, self.at_rest = unit, False
        return velocity

    def _show(self) -> None:
        if self.unit is not None:
            if self.unit != 1.0:
                with torch.no_grad():
                    super().__getitem__("velocity").div_(self.unit)
            self.unit = None
        self.at_rest = False

    def __getitem__(self, name: str) -> Any:
        self._show()
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._show()
        super().__setitem__(name, value)

    def __iter__(self) -> Iterator[str]:  # overridden so that dict(state) and {**state} ask for the items one by one
        return iter(list(super().keys()))

    def get(self, name: str, default: Any = None) -> Any:
        self._show()
        return super().get(name, default)

    def items(self) -> Any:
        self._show()
        return super().items()

    def values(self) -> Any:
        self._show()
        return super().values()

    def pop(self, *arguments: Any) -> Any:
        self._show()
        return super().pop(*arguments)

    def popitem(self) -> Any:
        self._show()
        return super().popitem()

    def setdefault(self, *arguments: Any) -> Any:
        self._show()
        return super().setdefault(*arguments)

    def update(self, *arguments: Any, **entries: Any) -> None:
        self._show()
        super().update(*arguments, **entries)

    def clear(self) -> None:
        self._show()
        super().clear()

    def __delitem__(self, name: str) -> None:
        self._show()
        super().__delitem__(name)

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __eq__(self, other: object) -> bool:
        return dict(self) == other

    __hash__ = None  # type: ignore[assignment]  # like a dict's

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:  # for pickle and deepcopy: a plain dict, which torch.load(weights_only=True) accepts
        return dict, (dict(self),)
