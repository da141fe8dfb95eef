"""Every example in a docstring runs, with the host that its module needs."""

import doctest
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

from conformance_tests.packages import skip_without

BACKENDS = ("torch", "tensorflow", "jax")
"""Of Keras; examples run on all but the first nightly."""

# packages a module's examples need, and the environments in which they run
NEEDS: dict[str, tuple[tuple[str, ...], tuple[dict[str, str], ...]]] = {
    "inna_core": (("numpy",), ({},)),
    "inna_scipy": (("scipy",), ({},)),
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
            "momentum",
            "psi",
            "compensation",
            "weight_decay",
            "dynamics",
            "monitor",
            "evaluation_order",
            "in_place",
            "loop",
            "schedules",
        )
    ),
    *(f"inna_core.newton.{name}" for name in ("summary", "step_sizes", "controller")),
    *(f"inna_core.portable.{name}" for name in ("state", "file", "layouts")),
    *(f"inna_{host}.portable" for host in ("torch", "optax", "keras")),
    *(f"inna_torch.newton.{name}" for name in ("derivatives", "optimizer")),
    *(f"inna_optax.newton.{name}" for name in ("derivatives", "transform")),
    *(f"inna_keras.newton.{name}" for name in ("derivatives", "trainer")),
    *(f"inna_torch.paths.{name}" for name in ("fused_sgd", "fused_adamw")),
    "inna_scipy.minimizer",
    *(f"inna_{host}.monitoring" for host in ("torch", "optax", "keras")),
    "inna_torch.optimizers",
    "inna_optax.transforms",
    "inna_keras.optimizers",
    "inna_keras.schedules",
}
"""Modules of public functions and classes: each must show how it is used."""


def public_modules(package: str, folder: Path) -> list[str]:
    """Return the modules of a package and of the packages in it.

    Private modules are left out: they may need what only one backend has, and show no examples.
    """
    names = []
    for module in iter_modules([str(folder)]):
        if not module.name.startswith("_"):
            name = f"{package}.{module.name}"
            names += [name, *(public_modules(name, folder / module.name) if module.ispkg else ())]
    return names


def modules() -> list[Any]:
    rows = []
    for package, (needed, envs) in NEEDS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        names = [package, *public_modules(package, Path(spec.origin).parent)]
        rows += [
            pytest.param(name, needed, env, id="-".join([name, *env.values()]), marks=pytest.mark.nightly if k else [])
            for name in names
            for k, env in enumerate(envs)
        ]
    return rows


def run_examples(name: str) -> tuple[int, int]:
    return tuple(doctest.testmod(importlib.import_module(name)))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "needed", "env"), modules())
def test_examples_of_docstrings_run(
    name: str, needed: tuple[str, ...], env: dict[str, str], workers: Callable[..., Any]
) -> None:
    skip_without(*needed, *env.values())
    function = f"{__name__}:run_examples"
    failed, attempted = workers(env).call(function, name) if env else run_examples(name)
    assert failed == 0
    assert attempted or name not in WITH_EXAMPLES
