"""How the tensors of a layer are laid out and named in torch and in Keras or Flax."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Layout = str | tuple[int, ...]
"""A name in `LAYOUTS`, or the order of axes for `numpy.transpose`."""

LayoutMapping = Mapping[str, str | tuple[str, Layout]]
"""By the name of a parameter in the file: its name here, or that and the layout of its layer."""


@dataclass(frozen=True)
class LayerLayout:
    """How a tensor is laid out in torch, and elsewhere (Keras, Flax).

    Attributes:
        ranks: numbers of dimensions that it may have.
        axes: of the tensor elsewhere, in torch's order, for a number of dimensions; None where nothing differs.
        symmetric: whether the same transposition leads back.
        grouped: whether torch merges input channels and multipliers into one dimension, and adds one of length 1.
    """

    ranks: tuple[int, ...]
    axes: Callable[[int], tuple[int, ...]] | None = None
    symmetric: bool = False
    grouped: bool = False


def channels_first(ndim: int) -> tuple[int, ...]:
    """Return the axes (out, in, spatial ...) of a kernel that is laid out as (spatial ..., in, out)."""
    return (ndim - 1, ndim - 2, *range(ndim - 2))


def inputs_first(ndim: int) -> tuple[int, ...]:
    """Return the axes (in, multiplier, spatial ...) of a kernel that is laid out as (spatial ..., in, multiplier)."""
    return (ndim - 2, ndim - 1, *range(ndim - 2))


LAYOUTS: dict[str, LayerLayout] = {
    "same": LayerLayout(tuple(range(65))),
    "norm": LayerLayout((1,)),
    "embedding": LayerLayout((2,)),
    "dense": LayerLayout((2,), lambda _: (1, 0), symmetric=True),
    "conv1d": LayerLayout((3,), channels_first),
    "conv2d": LayerLayout((4,), channels_first),
    "conv3d": LayerLayout((5,), channels_first),
    "depthwise": LayerLayout((3, 4, 5), inputs_first, grouped=True),
}
"""Layouts that a mapping may name. All but "same" name a kind of layer, of which "dense", convolutions and depthwise
convolutions are laid out as (in, out), (spatial ..., in, out) and (spatial ..., in, multiplier) in Keras and Flax, and
as (out, in), (out, in, spatial ...) and (in * multiplier, 1, spatial ...) in torch."""


def laid_out(array: np.ndarray, layout: Layout, shape: tuple[int, ...], source: str, target: str) -> np.ndarray:
    """Return a tensor in the layout of another framework.

    Args:
        array: in the layout of `source`.
        layout: of its layer, or the order of axes.
        shape: expected in `target`; tells how many input channels a depthwise kernel has.
        source, target: frameworks.

    Returns:
        The array in the layout of `target`.

    Raises:
        ValueError: if the layout is unknown, does not fit the tensor, or its direction is not clear.
    """
    if isinstance(layout, tuple):
        if sorted(layout) != list(range(array.ndim)):
            raise ValueError(f"Invalid layout: {layout!r} (expected an order of {array.ndim} axes)")
        return np.transpose(array, layout)
    if layout not in LAYOUTS:
        raise ValueError(f"Invalid layout: {layout!r} (expected one of {', '.join(LAYOUTS)}, or a tuple of axes)")
    row = LAYOUTS[layout]
    if array.ndim not in row.ranks:
        ranks = " or ".join(map(str, row.ranks))
        raise ValueError(f"Invalid layout: {layout!r} for shape {array.shape} (expected {ranks} dimensions)")
    if row.axes is None:
        return array
    if not row.symmetric and (source == "torch") == (target == "torch"):
        raise ValueError(
            f"Invalid layout: {layout!r} from {source} to {target} (expected 'same' or a tuple of axes: the named "
            "layouts lead from torch or to it)"
        )
    axes = row.axes(array.ndim)
    if target == "torch" or row.symmetric:
        moved = np.transpose(array, axes)
        return moved.reshape(moved.shape[0] * moved.shape[1], 1, *moved.shape[2:]) if row.grouped else moved
    if row.grouped:
        inputs = shape[-2] if len(shape) == array.ndim else 0
        if array.shape[1] != 1 or inputs < 1 or array.shape[0] % inputs:
            raise ValueError(f"Invalid layout: {layout!r} for shape {array.shape} (expected one that makes {shape})")
        array = array.reshape(inputs, array.shape[0] // inputs, *array.shape[2:])
    return np.transpose(array, np.argsort(axes))


NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {"layer": ("weight", "bias"), "embedding": ("weight",), "norm": ("weight", "bias")},
    "keras": {"layer": ("kernel", "bias"), "embedding": ("embeddings",), "norm": ("gamma", "beta")},
    "flax": {"layer": ("kernel", "bias"), "embedding": ("embedding",), "norm": ("scale", "bias")},
}
"""Names of a layer's parameters in each framework; corresponding ones have the same position."""

SEPARATORS = {"torch": ".", "keras": "/", "flax": "/"}


def mapping_of_layers(
    layers: Iterable[tuple[str, str, str]], *, source: str, target: str, names: Collection[str] | None = None
) -> dict[str, tuple[str, Layout]]:
    """Return the mapping for a model's layers.

    Args:
        layers: for each layer its prefix in the file, its prefix in the target, and its kind, one of `LAYOUTS`.
        source, target: frameworks whose names the parameters have: "torch", "keras", "flax".
        names: of the parameters in the file. Others are left out, such as the bias of a layer without one. By default
            every layer has all its parameters.

    Returns:
        By the name in the file, the name in the target and the layout: the kind of layer from torch or to it,
        "same" between Keras and Flax.

    Raises:
        ValueError: if a kind or a naming is unknown.

    Example:
        >>> mapping_of_layers([("net/dense", "dense", "dense")], source="keras", target="torch")
        {'net/dense/kernel': ('dense.weight', 'dense'), 'net/dense/bias': ('dense.bias', 'same')}
    """
    for argument, naming in (("source", source), ("target", target)):
        if naming not in NAMES:
            raise ValueError(f"Invalid {argument}: {naming!r} (expected one of {', '.join(NAMES)})")
    mapping: dict[str, tuple[str, Layout]] = {}
    for theirs, ours, kind in layers:
        if kind not in LAYOUTS or kind == "same":
            known = ", ".join(name for name in LAYOUTS if name != "same")
            raise ValueError(f"Invalid layers: kind {kind!r} of {theirs!r} (expected one of {known})")
        layout = kind if (source == "torch") != (target == "torch") else "same"
        names_of = kind if kind in ("embedding", "norm") else "layer"
        for i, (old, new) in enumerate(zip(NAMES[source][names_of], NAMES[target][names_of], strict=True)):
            key = joined(theirs, old, source)
            if names is None or key in names:
                mapping[key] = joined(ours, new, target), layout if i == 0 else "same"
    return mapping


def joined(prefix: str, name: str, naming: str) -> str:
    return f"{prefix}{SEPARATORS[naming]}{name}" if prefix else name


def entry_of(mapping: LayoutMapping, name: str) -> tuple[str, Any]:
    """Return the name in the target and the layout that a mapping states for a parameter, or None."""
    entry: Any = mapping.get(name, name)
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
        return entry
    raise TypeError(f"Invalid layout: {entry!r} for {name!r} (expected a name, or a pair of a name and a layout)")
