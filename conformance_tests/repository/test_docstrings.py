"""Every example in a docstring runs, with the host that its module needs."""

import doctest
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

# packages a module's examples need, and the environments in which they run
NEEDS: dict[str, tuple[tuple[str, ...], tuple[dict[str, str], ...]]] = {
    "inna_core": (("numpy",), ({},)),
    "inna_torch": (("torch",), ({},)),
    "inna_optax": (("optax",), ({},)),
    "inna_keras": (("keras",), tuple({"KERAS_BACKEND": backend} for backend in BACKENDS)),
}


WITH_EXAMPLES = {
    *(
        f"inna_core.{name}"
        for name in (
            "inna",
            "innaprop",
            "psi",
            "compensation",
            "weight_decay",
            "dynamics",
            "evaluation_order",
            "schedules",
        )
    ),
    "inna_torch.optimizers",
    "inna_optax.transforms",
    "inna_keras.optimizers",
    "inna_keras.schedules",
}
"""Modules of public functions and classes: each must show how it is used."""


def modules() -> list[Any]:
    rows = []
    for package, (needed, envs) in NEEDS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        # private modules may need what only one backend has, and show no examples
        public = [m.name for m in iter_modules([str(Path(spec.origin).parent)]) if not m.name.startswith("_")]
        names = [package, *(f"{package}.{name}" for name in public)]
        rows += [pytest.param(name, needed, env, id="-".join([name, *env.values()])) for name in names for env in envs]
    return rows


def run_examples(name: str) -> tuple[int, int]:
    return tuple(doctest.testmod(importlib.import_module(name)))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "needed", "env"), modules())
def test_examples(name: str, needed: tuple[str, ...], env: dict[str, str], workers: Callable[..., Any]) -> None:
    for package in (*needed, *(BACKENDS[backend] for backend in env.values())):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    function = f"{__name__}:run_examples"
    failed, attempted = workers(env).call(function, name) if env else run_examples(name)
    assert failed == 0
    assert attempted or name not in WITH_EXAMPLES
