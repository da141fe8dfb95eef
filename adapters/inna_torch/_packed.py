"""The state of many small tensors side by side in memory, where a kernel can run on all of it at once.

The tensors of the states stay the objects that they are, and get other data: pieces of common memory. What is written
down about them refers to none of them, so that nothing is kept alive that its owner lets go of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import torch

from inna_torch._steps import Part, elements, flatten, parts, unflatten

Tensor = torch.Tensor
PLACE: Callable[[Tensor], int] = torch.Tensor.data_ptr
STRIDE: Callable[[Tensor], tuple[int, ...]] = torch.Tensor.stride


class Block(NamedTuple):
    """States that lie side by side, to work with for one step.

    Attributes:
        entries: by name, the tensors in the states.
        memory: by name, all of them as one one-dimensional tensor.
        shapes: of the parameters.
        parts: what to work on at a time.
    """

    entries: dict[str, list[Tensor]]
    memory: dict[str, Tensor]
    shapes: list[torch.Size]
    parts: list[Part]


@dataclass(frozen=True)
class Packed:
    """What was found when states had been put side by side.

    Attributes:
        states: identities of the states.
        tensors: by name, identities of the tensors in them,
        places: where in memory these begin,
        strides: and their strides.
        size: elements of all parameters.
        shapes: of the parameters.
        parts: what to work on at a time.
    """

    states: list[int]
    tensors: dict[str, list[int]]
    places: dict[str, list[int]]
    strides: dict[str, list[tuple[int, ...]]]
    size: int
    shapes: list[torch.Size]
    parts: list[Part]

    def block(self, states: Sequence[Any], names: Sequence[str]) -> Block | None:
        """Return these states as they lie side by side, or None if they, with these entries and no other, do not."""
        if set(names) != set(self.tensors) or list(map(id, states)) != self.states:
            return None
        if set(map(len, states)) != {len(names)}:
            return None
        entries: dict[str, list[Any]] = {name: list(map(dict.get, states, repeat(name))) for name in names}
        memory: dict[str, Tensor] = {}
        for name, own in entries.items():
            if list(map(id, own)) != self.tensors[name]:
                return None
            # somebody may have given a tensor other data, or another form
            if list(map(PLACE, own)) != self.places[name] or list(map(STRIDE, own)) != self.strides[name]:
                return None
            size = len(own) if name == "step" else self.size
            first = next((x for x in own if x.numel()), own[0])
            if first.untyped_storage().nbytes() != size * first.element_size():
                return None
            memory[name] = first.as_strided((size,), (1,), 0)
        return Block(entries, memory, self.shapes, self.parts)

    def unpack(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Give those tensors that still lie where they were put memory of their own.

        Args:
            states: at their positions; None where one is gone.
        """
        for name, own in self.tensors.items():
            for state, tensor, place in zip(states, own, self.places[name], strict=True):
                x = None if state is None else state.get(name)
                if x is not None and id(x) == tensor and x.data_ptr() == place and x.numel():
                    with torch.inference_mode(False):  # nobody could write it later
                        x.data = x.data.clone()


def packed(params: list[Tensor], states: list[dict[str, Any]], names: Sequence[str]) -> Packed | None:
    """Put the tensors of states side by side in memory, each entry for itself.

    Args:
        params: small tensors.
        states: of the parameters; their entries of one name are contiguous tensors of one dtype and device.
        names: of the entries.

    Returns:
        What there is to know of them; None, and nothing changed, where processes share them or none can write them.
    """
    entries = {name: [state[name] for state in states] for name in names}
    if any(x.is_inference() or (x.is_cpu and x.is_shared()) for own in entries.values() for x in own):
        return None
    with torch.inference_mode(False):  # nobody could write it later
        pieces = {name: unflatten(flatten(own), own) for name, own in entries.items()}
        for name, own in entries.items():
            for x, data in zip(own, pieces[name], strict=True):
                if x.numel():
                    x.data = data
    return Packed(
        list(map(id, states)),
        {name: list(map(id, own)) for name, own in entries.items()},
        {name: list(map(PLACE, own)) for name, own in entries.items()},
        {name: list(map(STRIDE, own)) for name, own in entries.items()},
        elements(params),
        [p.shape for p in params],
        parts(params),
    )


def disjoint(tensors: Sequence[Tensor]) -> bool:
    """Return whether contiguous tensors share no memory."""
    places = sorted((x.data_ptr(), x.nbytes) for x in tensors if x.numel())
    return all(start + size <= following for (start, size), (following, _) in pairwise(places))
