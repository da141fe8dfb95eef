"""Checks that a state from a file fits an optimizer, and its conversion, before anything changes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from inna_core.portable.layouts import LAYOUTS, Layout, LayoutMapping, entry_of, laid_out
from inna_core.portable.state import PortableState

DYNAMICS = ("alpha", "beta", "momentum", "lead", "sigma", "eps", "published_decay")
"""Hyperparameters that usually stay fixed during a run, so that a difference may be a mistake."""


def fitted(
    state: PortableState,
    like: PortableState,
    layout: LayoutMapping | None = None,
    *,
    hyperparameters: str = "same",
    step: int | None = None,
) -> PortableState:
    """Return a state with the names and layouts of an optimizer.

    Args:
        state: from a file.
        like: what the optimizer would save now.
        layout: by the name of a parameter in the file, its name here, or a pair of that and the layout of its layer:
            one of `LAYOUTS`, or an order of axes. Names that are the same need no entry. Between frameworks every
            tensor of two or more dimensions needs a layout: a shape that fits does not prove the order of the axes.
        hyperparameters: "same" to refuse a file whose dampings (alpha, beta, momentum, lead, sigma, eps,
            published_decay) are not those of the optimizer; "own" to continue with the optimizer's.
        step: number of steps made, for files without it.

    Returns:
        A state with the framework, names, shapes and dtypes of `like`, the file's values, and like's hyperparameters.

    Raises:
        ValueError: if a name is missing or unexpected, a shape or dtype differs, a layout is needed or does not fit,
            or the algorithm or a damping is another one.
    """
    if hyperparameters not in ("same", "own"):
        raise ValueError(f"Invalid hyperparameters: {hyperparameters!r} (expected 'same' or 'own')")
    if state.algorithm != like.algorithm:
        raise ValueError(f"Invalid path: a state of {state.algorithm} (expected {like.algorithm}, as the optimizer's)")
    if hyperparameters == "same":
        check_dynamics(state, like, layout or {})
    if state.step is not None and step is not None and step != state.step:
        raise ValueError(f"Invalid step: {step!r} (expected None: the file says {state.step})")
    if unknown := sorted(set(layout or {}) - set(state.slots)):
        raise ValueError(f"Invalid layout: {unknown} (expected names in the file: {sorted(state.slots)})")
    sources: dict[str, tuple[str, Any]] = {}
    for name in state.slots:
        target, own_layout = entry_of(layout or {}, name)
        if target in sources:
            raise ValueError(f"Invalid layout: {target!r} for {name!r} (expected once; {sources[target][0]!r} has it)")
        sources[target] = name, own_layout
    check_names("parameters", sources, like.slots)

    slots, parameters = {}, {}
    for target, own in like.arrays().items():
        name, own_layout = sources[target]
        arrays = dict(state.arrays()[name])
        if not like.parameters:
            arrays.pop("parameter", None)
        check_names(f"slots of {target!r}", arrays, own)
        slots[target] = {slot: fit(arrays[slot], x, state, like, name, slot, own_layout) for slot, x in own.items()}
        if like.parameters:
            parameters[target] = slots[target].pop("parameter")
    return replace(
        like,
        step=state.step if state.step is not None else step,
        steps={target: state.steps[name] for target, (name, _) in sources.items() if name in state.steps},
        slots=slots,
        parameters=parameters,
    )


def fit(
    array: np.ndarray,
    own: np.ndarray,
    state: PortableState,
    like: PortableState,
    name: str,
    slot: str,
    layout: Layout | None,
) -> np.ndarray:
    """Return an array of the file in the optimizer's layout."""
    if layout is None:
        if array.ndim >= 2 and state.framework != like.framework:
            raise ValueError(
                f"Invalid layout: none for {name!r} of shape {array.shape} from {state.framework} (expected a pair of "
                f"the name in {like.framework} and one of {', '.join(LAYOUTS)}, or a tuple of axes)"
            )
        layout = "same"
    moved = laid_out(array, layout, own.shape, state.framework, like.framework)
    if moved.shape != own.shape:
        raise ValueError(
            f"Invalid path: {slot} of {name!r} has shape {array.shape}, {moved.shape} as {layout!r} (expected "
            f"{own.shape})"
        )
    if moved.dtype != own.dtype:
        raise ValueError(f"Invalid path: {slot} of {name!r} has dtype {moved.dtype} (expected {own.dtype})")
    return np.array(moved, order="C", ndmin=moved.ndim)


def check_names(what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ValueError(f"Invalid path: {what}: missing {missing}, unexpected {unexpected} (expected the optimizer's)")


def check_dynamics(state: PortableState, like: PortableState, layout: LayoutMapping) -> None:
    for name, numbers in state.hyperparameters.items():
        own = like.hyperparameters.get(entry_of(layout, name)[0], {})
        for key in DYNAMICS:
            if key in numbers and key in own and numbers[key] != own[key]:
                raise ValueError(
                    f"Invalid path: {key} {numbers[key]!r} for {name!r} (expected {own[key]!r}, as the optimizer's, or "
                    "hyperparameters='own' to go on with that)"
                )


def check_one_count(state: PortableState) -> int:
    """Return the number of steps, for hosts that have one counter."""
    if state.step is None:
        raise ValueError("Invalid path: no number of steps in it (expected one, or the argument step)")
    if other := {name: k for name, k in state.steps.items() if k != state.step}:
        raise ValueError(
            f"Invalid path: steps {other} (expected {state.step} for each parameter: there is one counter)"
        )
    return state.step
