"""The order in which the paths are asked for a step."""

import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import inna_core
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch.paths import compiled, foreach, fused_adamw, fused_sgd, single

FUSED: dict[type, ModuleType] = {inna_core.INNA: fused_sgd, inna_core.INNAprop: fused_adamw}
"""The fused path of an algorithm, if torch has kernels that make its step."""

LIBRARIES = tuple(str(path) + os.sep for path in (Path(torch.__file__).parent, Path(__file__).parent.parent))


def plan(batch: Batch, hyper: Hyperparameters, warned: set[str]) -> Callable[[], None]:
    """Return the in-place step of a batch from the first path that has one; nothing is changed yet.

    `warned` holds the paths that were already named in a warning; a new warning adds its path.
    """
    for path in paths(type(hyper.algorithm), hyper.foreach, hyper.fused, hyper.differentiable):
        if (step := path.plan(batch, hyper)) is not None:
            break
    else:
        raise AssertionError("the last path takes every batch")
    if hyper.fused and path is not FUSED.get(type(hyper.algorithm)):
        warn_not_fused(path.__name__.split(".")[-1], warned)
    if path is fused_sgd or not batch.scaled:
        return step

    def unscale_and_step() -> None:
        for state in batch.states:
            state.unscale()
        step()

    return unscale_and_step


@functools.cache
def paths(algorithm: type, foreach_flag: bool | None, fused_flag: bool | None, differentiable: bool) -> list[Any]:
    """Return the paths in the order in which they are asked; the last takes every batch."""
    if differentiable:
        return [single]
    asked: set[Any] = {compiled, single}
    if fused_flag or foreach_flag is fused_flag is None:
        asked.add(FUSED.get(algorithm))
    if foreach_flag or (foreach_flag is None and fused_flag is not False):
        asked.add(foreach)
    # the SGD kernel makes one pass over memory, as compiled code does
    return [path for path in (fused_sgd, compiled, fused_adamw, foreach, single) if path in asked]


def warn_not_fused(path: str, warned: set[str]) -> None:
    if path not in warned:
        warnings.warn(
            f"fused=True, but the {path} path is taken for some parameters: torch's kernels need float32 or float64 "
            "parameters and gradients with the same dense memory layout, on a device that has them, and an lr that is "
            "not large against beta nor close to 1 / alpha (or a lead near 1 + momentum); INNA's also capturable=False",
            stacklevel=caller_level(),
        )
        warned.add(path)


def caller_level() -> int:
    """Return the ``stacklevel`` of a warning that points to the first line outside of torch and this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
