"""The state of many small tensors side by side in memory, where a kernel can run on all of it at once.

The tensors of the states stay the objects that they are, and get other data: pieces of common memory. What is written
down about them refers to none of them, so that nothing is kept alive that its owner lets go of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from inna_torch._steps import Part, elements, flatten, parts, unflatten

Tensor = torch.Tensor
PLACE: Callable[[Tensor], int] = torch.Tensor.data_ptr


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
        states: their identities.
        places: by name, where in memory the tensors in them begin.
        size: elements of all parameters.
        shapes: of the parameters.
        parts: what to work on at a time.
    """

    states: list[int]
    places: dict[str, list[int]]
    size: int
    shapes: list[torch.Size]
    parts: list[Part]

    def block(self, states: Sequence[Any], names: Sequence[str]) -> Block | None:
        """Return these states as they lie side by side, or None if these entries of them do not."""
        if len(states) != len(self.states) or set(names) != set(self.places):
            return None
        entries: dict[str, list[Any]] = {}
        memory: dict[str, Tensor] = {}
        for name in names:
            try:
                entries[name] = own = list(map(itemgetter(name), states))
                places = list(map(PLACE, own))
            except (KeyError, TypeError, RuntimeError):  # there is none, or it is no tensor in memory
                return None
            size = len(own) if name == "step" else self.size
            first = next((x for x in own if x.numel()), own[0])
            # As long as the first has the common memory, nothing else can lie where the others should.
            if places != self.places[name] or first.untyped_storage().nbytes() != size * first.element_size():
                return None
            if name != "step" and not all(map(torch.Tensor.is_contiguous, own)):
                return None
            memory[name] = first.as_strided((size,), (1,), 0)
        return Block(entries, memory, self.shapes, self.parts)

    def unpack(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Give those tensors that still lie where they were put memory of their own.

        Args:
            states: at their positions; None where one is gone.
        """
        for name, places in self.places.items():
            for state, place in zip(states, places, strict=True):
                x = None if state is None else state.get(name)
                if type(x) is Tensor and x.numel() and x.data_ptr() == place:
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
        {name: list(map(PLACE, own)) for name, own in entries.items()},
        elements(params),
        [p.shape for p in params],
        parts(params),
    )


def disjoint(tensors: Sequence[Tensor]) -> bool:
    """Return whether contiguous tensors share no memory."""
    places = sorted((x.data_ptr(), x.nbytes) for x in tensors if x.numel())
    return all(start + size <= following for (start, size), (following, _) in pairwise(places))
