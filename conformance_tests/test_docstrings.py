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


def modules() -> list[Any]:
    rows = []
    for package, (needed, envs) in NEEDS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        names = [package, *(f"{package}.{module.name}" for module in iter_modules([str(Path(spec.origin).parent)]))]
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
    failed, _ = workers(env).call(function, name) if env else run_examples(name)
    assert failed == 0


def test_public_names_have_examples() -> None:
    for package, (needed, envs) in NEEDS.items():
        if envs == ({},) and all(find_spec(one) for one in needed):
            module = importlib.import_module(package)
            for name in module.__all__:
                item = getattr(module, name)
                if callable(item) and not hasattr(item, "_fields") and name != "Algorithm":
                    assert ">>>" in (item.__doc__ or ""), f"{package}.{name}"
