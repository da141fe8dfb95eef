"""A parameter's state, whose velocity torch's fused SGD kernel stores times a factor (`paths.fused_sgd`)."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch.utils import _pytree


class ScaledState(MutableMapping[str, Any]):
    """A parameter's state, as `optimizer.state[p]` shows it.

    Reading "velocity", in whatever way, returns the true one: it is divided by the factor in place. A tensor that was
    read is never scaled again, since it may be referenced elsewhere; the kernel's next step continues with a copy.

    Attributes:
        entries: the state, its velocity times `scale`.
        scale: factor of the velocity; None if it is unscaled and its tensor may be referenced elsewhere.
    """

    __slots__ = ("entries", "scale")

    def __init__(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        self.entries: dict[str, Any] = dict(entries)
        self.scale: float | None = None

    def unscale(self) -> None:
        """Divide the velocity by its factor, in place."""
        if self.scale is not None and self.scale != 1.0:
            with torch.no_grad():
                self.entries["velocity"].div_(self.scale)
            self.scale = 1.0

    def true_velocity(self) -> Any:
        """Return the true velocity, as a new tensor if it is scaled, and leave the state as it is."""
        velocity = self.entries["velocity"]
        return velocity if self.scale in (None, 1.0) else velocity / self.scale

    def __getitem__(self, name: str) -> Any:
        if name == "velocity":
            self.unscale()
            self.scale = None
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "velocity":
            self.scale = None
        self.entries[name] = value

    def __delitem__(self, name: str) -> None:
        del self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __repr__(self) -> str:
        return repr(dict(self))

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        # copies and pickles are plain dicts, which need no import of this package
        return dict, (dict(self),)


_pytree.register_pytree_node(
    ScaledState,
    lambda state: (list(state.values()), list(state)),
    lambda values, names: ScaledState(zip(names, values, strict=True)),
    serialized_type_name="inna_torch.ScaledState",
)
