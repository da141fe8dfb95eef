"""The state of many small tensors side by side in memory, where a kernel can run on all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import Any

import torch

from inna_torch._steps import Part, flatten, parts, unflatten

Tensor = torch.Tensor
PLACE = torch.Tensor.data_ptr


@dataclass(frozen=True)
class Packed:
    """States whose tensors are views of common memory.

    Attributes:
        states: of the parameters.
        entries: by name, the tensors that the states hold.
        memory: by name, the one-dimensional tensor that these are views of.
        places: by name, where in memory the tensors begin.
        shapes: of the parameters.
        parts: blocks of the parameters that one works on at a time.
    """

    states: list[dict[str, Any]]
    entries: dict[str, list[Tensor]]
    memory: dict[str, Tensor]
    places: dict[str, list[int]]
    shapes: list[torch.Size]
    parts: list[Part]

    def holds(self, states: Sequence[Any]) -> bool:
        """Return whether these are the states, and still hold the views."""
        return (
            same(states, self.states)
            and all(same(list(map(dict.get, states, repeat(name))), own) for name, own in self.entries.items())
            # somebody may have given a tensor other data
            and all(list(map(PLACE, own)) == self.places[name] for name, own in self.entries.items())
        )

    def unpack(self) -> None:
        """Give those states that still hold these views tensors of their own."""
        for name, own in self.entries.items():
            for state, x in zip(self.states, own, strict=True):
                if state.get(name) is x:
                    state[name] = x.clone()


def same(x: Sequence[Any], y: Sequence[Any]) -> bool:
    """Return whether two sequences hold the same objects."""
    return len(x) == len(y) and all(map(is_, x, y))


def packed(params: list[Tensor], states: list[dict[str, Any]], names: Sequence[str]) -> Packed:
    """Put the tensors of states side by side in memory, each entry for itself.

    Args:
        params: small tensors on a CPU.
        states: of the parameters; their entries of one name are contiguous tensors of one dtype and device.
        names: of the entries.

    Returns:
        The states, which hold views of the common memory now.
    """
    found = {name: [state[name] for state in states] for name in names}
    with torch.inference_mode(False):  # its tensors could not be written later
        memory = {name: flatten(own) for name, own in found.items()}
        entries = {name: unflatten(memory[name], own) for name, own in found.items()}
    for name, own in entries.items():
        for state, x in zip(states, own, strict=True):
            state[name] = x
    places = {name: list(map(PLACE, own)) for name, own in entries.items()}
    return Packed(states, entries, memory, places, [p.shape for p in params], parts(params))
