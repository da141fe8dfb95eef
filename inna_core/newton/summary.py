"""What hosts pass to summary-Newton: derivatives along a direction, and the partition of parameters into groups."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from inna_core.algorithm import Array


class Summary(NamedTuple):
    """Derivatives of the loss along a direction split into S groups.

    Attributes:
        gradient: g, shape (S,).
        hessian: H, shape (S, S), symmetric.
        third: T, the third derivative along each group on its own, shape (S,); zeros for order 2.
    """

    gradient: Array
    hessian: Array
    third: Array


def partition(names: Sequence[str], ranks: Sequence[int], groups: Any = "tensor") -> tuple[list[int], list[str]]:
    """Return the group of each tensor, and the groups' labels in order of their first tensor.

    Args:
        names: of the tensors, parts separated by dots or slashes, as ``"encoder.0.weight"``.
        ranks: numbers of dimensions of the tensors.
        groups: ``"tensor"`` (each its own group), ``"one"``, ``"kind"`` (weights: rank 2 and more; biases: the rest,
            scales of normalisation layers among them), ``"layer"`` (names that differ in the last part only), a
            sequence with one label per tensor, or a callable from a name to a label.

    Returns:
        The index of each tensor's group, and the labels.

    Raises:
        ValueError: if groups is none of these, or the number of labels is not that of the tensors.

    Example:
        >>> partition(["a.weight", "a.bias", "b.weight"], [2, 1, 2], "kind")
        ([0, 1, 0], ['weights', 'biases'])
    """
    if groups == "tensor":
        # not by name: tied or unnamed tensors may share one
        return list(range(len(names))), list(names)
    if groups == "one":
        labels = ["all"] * len(names)
    elif groups == "kind":
        labels = ["weights" if rank >= 2 else "biases" for rank in ranks]
    elif groups == "layer":
        labels = [re.split(r"[./][^./]*$", name)[0] for name in names]
    elif callable(groups):
        labels = [str(groups(name)) for name in names]
    elif isinstance(groups, Sequence) and not isinstance(groups, str) and len(groups) == len(names):
        labels = [str(label) for label in groups]
    else:
        raise ValueError(
            f"Invalid groups: {groups!r} (expected 'tensor', 'one', 'kind', 'layer', {len(names)} labels or a callable)"
        )
    distinct = list(dict.fromkeys(labels))
    return [distinct.index(label) for label in labels], distinct


def check_order(order: Any) -> None:
    """Refuse an order of derivatives other than 2 and 3."""
    if order not in (2, 3):
        raise ValueError(f"Invalid order: {order!r} (expected 2 or 3)")
