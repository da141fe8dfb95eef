"""Imports run one way, and each module loads its own framework alone."""

import importlib.util
import subprocess
import sys

import pytest

FRAMEWORKS = {"numpy", "torch", "jax", "optax", "keras", "tensorflow", "cupy", "sklearn", "mpmath"}

ALLOWED: dict[str, tuple[tuple[str, ...], set[str], dict[str, str]]] = {
    "inna_core": ((), set(), {}),
    "inna_torch": (("torch",), {"torch", "numpy"}, {}),
    "inna_optax": (("optax",), {"optax", "jax", "numpy"}, {}),
    "inna_keras on torch": (("keras", "torch"), {"keras", "torch", "numpy"}, {"KERAS_BACKEND": "torch"}),
    "inna_keras on jax": (("keras", "jax"), {"keras", "jax", "numpy"}, {"KERAS_BACKEND": "jax"}),
    "inna_keras on tensorflow": (
        ("keras", "tensorflow"),
        {"keras", "tensorflow", "numpy"},
        {"KERAS_BACKEND": "tensorflow"},
    ),
}
"""By module: packages it needs, frameworks it may load, environment."""


def loaded(statement: str, env: dict[str, str]) -> set[str]:
    import os

    paths = [path for path in sys.path if path]
    code = f"import sys; sys.path[:] = {paths!r}; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return FRAMEWORKS & set(done.stdout.split())


@pytest.mark.parametrize("row", ALLOWED)
def test_import_loads_no_other_framework(row: str) -> None:
    packages, allowed, env = ALLOWED[row]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    # what the host itself pulls in (TensorFlow loads its own keras, say) is not ours to answer for
    by_the_host = loaded(f"import {packages[0]}", env) if packages else set()
    ours = loaded(f"import {row.split()[0]}", env)
    assert ours <= allowed | by_the_host
    assert set(packages) <= ours
