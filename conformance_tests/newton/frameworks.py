"""Array frameworks in which step sizes are computed: how to make an array, and how to solve."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inna_core import newton_step_sizes


def numpy_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return np.asarray, newton_step_sizes


def strict_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    return xp.asarray, newton_step_sizes


def torch_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.tensor, newton_step_sizes


def jax_arrays() -> tuple[Callable[..., Any], Callable[..., Any]]:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray, newton_step_sizes


def jax_jit() -> tuple[Callable[..., Any], Callable[..., Any]]:
    make, solve = jax_arrays()
    import jax

    return make, jax.jit(solve)


FRAMEWORKS = {"numpy": numpy_arrays, "strict": strict_arrays, "torch": torch_arrays, "jax": jax_arrays, "jit": jax_jit}
