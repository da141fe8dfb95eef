"""The hyperparameters and flags of a param group, validated when one of them changes."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any

import torch

from inna_core._validation import checked_choice, checked_number
from inna_core.algorithm import Algorithm
from inna_core.coefficients import Coefficients, given
from inna_core.weight_decay import check_published_decay

EXCLUSIVE = (
    ("fused", "foreach"),
    *(("compiled", other) for other in ("fused", "foreach", "capturable", "differentiable")),
    *(("differentiable", other) for other in ("fused", "foreach", "capturable")),
)

IMMUTABLE = {float, int, bool, type(None)}


@dataclass(frozen=True)
class Hyperparameters:
    """The entries of a param group other than its parameters, validated.

    Attributes:
        algorithm: with its hyperparameters: floats, 0-d tensors whose values are left on their device, or None.
        lr, weight_decay: likewise.
        on_host: whether all of these numbers are floats.
        published_decay, ...: the flags.
    """

    algorithm: Any
    lr: Any
    weight_decay: Any
    on_host: bool = True
    published_decay: bool = False
    maximize: bool = False
    kahan_sum: bool | None = None
    foreach: bool | None = None
    fused: bool | None = None
    compiled: bool = False
    capturable: bool = False
    differentiable: bool = False

    @functools.cached_property
    def coefficients(self) -> Coefficients:
        """The coefficients of a step of INNA or INNAprop."""
        return self.algorithm.coefficients(self.lr)

    def numbers(self) -> dict[str, Any]:
        """Return weight decay, lr and the algorithm's hyperparameters that are not None, by name."""
        return {"weight_decay": self.weight_decay, **given(self.algorithm, self.lr)}


FLAGS: dict[str, Any] = {field.name: field.default for field in fields(Hyperparameters)[4:]}
"""The flags of a param group and their defaults; None lets the optimizer choose."""


def entry_names(algorithm: Any) -> tuple[str, ...]:
    return ("lr", "weight_decay", *algorithm.__match_args__, *FLAGS)


def completed(algorithm: Any, entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a param group, validated, with the algorithm's defaults for None.

    Raises:
        TypeError, ValueError: as `hyperparameters`.
    """
    entries = {**dict.fromkeys(entry_names(algorithm)), **FLAGS, **entries}
    found = hyperparameters(algorithm, entries).algorithm
    return {**entries, **{name: getattr(found, name) for name in algorithm.__match_args__ if entries[name] is None}}


@functools.cache
def entry_getter(algorithm: type[Algorithm]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return itemgetter(*entry_names(algorithm))


def hyperparameters(algorithm: type[Algorithm], group: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of a param group, whose other entries are ignored.

    Raises:
        TypeError: if an entry has a wrong type.
        ValueError: if a number is out of range, or flags exclude each other. Tensors are read only if all of
            them are on the CPU and neither `capturable` nor `differentiable` is set.
    """
    entries = entry_getter(algorithm)(group)
    # a tensor may be written in place, so its validation cannot be cached
    immutable = IMMUTABLE.issuperset(map(type, entries))
    return (validated if immutable else validate)(algorithm, *entries)


def validate(algorithm: Any, *entries: Any) -> Hyperparameters:
    """Return the hyperparameters of a group with these entries, in the order of `entry_names`."""
    named = dict(zip(entry_names(algorithm), entries, strict=True))
    flags = {name: named.pop(name) for name in FLAGS}
    for name, value in flags.items():
        checked_choice(name, value, (True, False, None) if FLAGS[name] is None else (True, False))
    for name, other in EXCLUSIVE:
        if flags[name] and flags[other]:
            unset = " or None" if FLAGS[name] is None else ""
            raise ValueError(f"Invalid {name}: True (expected False{unset} where {other} is True)")
    # None is left out where it is the algorithm's own default
    numbers = {k: scalar(k, x) for k, x in named.items() if x is not None or getattr(algorithm, k, 0) is not None}
    tensors = [x for x in numbers.values() if isinstance(x, torch.Tensor)]
    if tensors and not (flags["capturable"] or flags["differentiable"]) and all(x.is_cpu for x in tensors):
        # cheap, and the values can be validated
        numbers, tensors = {k: float(x) if isinstance(x, torch.Tensor) else x for k, x in numbers.items()}, []
    lr, weight_decay = (checked_number(name, numbers.pop(name)) for name in ("lr", "weight_decay"))
    known = algorithm(**numbers)
    if flags["published_decay"]:
        check_published_decay(known)
    return Hyperparameters(known, lr, weight_decay, not tensors, **flags)


validated = functools.lru_cache(maxsize=256, typed=True)(validate)


def scalar(name: str, value: Any) -> Any:
    """Return a number as it is, and a tensor of one element as a 0-d tensor."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(f"Invalid {name}: a tensor of {value.numel()} elements (expected a tensor of one element)")
    return value.reshape(())
