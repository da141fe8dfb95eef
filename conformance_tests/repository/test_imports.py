"""Imports run one way, and each module loads its own framework alone."""

import ast
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import inna_core
from conformance_tests.packages import skip_without
from conformance_tests.tiers import nightly_but

FRAMEWORKS = {
    "inna_scipy",
    "inna_torch",
    "inna_optax",
    "inna_keras",
    "numpy",
    "torch",
    "jax",
    "optax",
    "keras",
    "tensorflow",
    "cupy",
    "scipy",
    "sklearn",
    "mpmath",
    "matplotlib",
}

ALLOWED: dict[str, tuple[tuple[str, ...], set[str], dict[str, str]]] = {
    "inna_core": ((), set(), {}),
    "inna_scipy": (("scipy",), {"inna_scipy", "scipy", "numpy"}, {}),
    "inna_torch": (("torch",), {"inna_torch", "torch", "numpy"}, {}),
    "inna_optax": (("optax",), {"inna_optax", "optax", "jax", "numpy"}, {}),
    "inna_keras on torch": (("keras", "torch"), {"inna_keras", "keras", "torch", "numpy"}, {"KERAS_BACKEND": "torch"}),
    "inna_keras on jax": (("keras", "jax"), {"inna_keras", "keras", "jax", "numpy"}, {"KERAS_BACKEND": "jax"}),
    "inna_keras on tensorflow": (
        ("keras", "tensorflow"),
        {"inna_keras", "keras", "tensorflow", "numpy"},
        {"KERAS_BACKEND": "tensorflow"},
    ),
}
"""By module: packages it needs, frameworks it may load, environment."""


def loaded(first: str, then: str, env: dict[str, str]) -> tuple[set[str], set[str]]:
    """Return the frameworks that are loaded after importing one module, and after importing another behind it.

    The second is one of our packages; it must have the version that they share.
    """
    paths = [path for path in sys.path if path]
    shown = "print(*{name.split('.')[0] for name in sys.modules})"
    code = f"import sys; sys.path[:] = {paths!r}; import {first}; {shown}; import {then}; {shown}; "
    code += f"import inna_core; assert {then}.__version__ == inna_core.__version__"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    first_modules, all_modules = (set(line.split()) for line in done.stdout.splitlines()[-2:])
    return FRAMEWORKS & first_modules, FRAMEWORKS & all_modules


ONE_BACKEND = ("inna_core", "inna_scipy", "inna_torch", "inna_optax", "inna_keras on jax")


@pytest.mark.parametrize("row", nightly_but(ONE_BACKEND, ALLOWED))
def test_import_loads_no_other_framework(row: str) -> None:
    packages, allowed, env = ALLOWED[row]
    skip_without(*packages)
    # what the host itself pulls in (TensorFlow loads its own keras, say) is not ours to answer for
    by_the_host, ours = loaded(packages[0] if packages else "sys", row.split()[0], env)
    assert ours <= allowed | by_the_host
    assert set(packages) <= ours


def test_the_version_is_that_of_the_distribution() -> None:
    try:
        expected = version("inna")
    except PackageNotFoundError:
        expected = "0+unknown"
    assert inna_core.__version__ == expected


MAY_IMPORT = {
    "inna_core": {"array_api_compat", "matplotlib"},  # inside `monitor.plot`
    "inna_core.portable": {"inna_core", "numpy", "ml_dtypes", "safetensors"},
    "inna_scipy": {"inna_core", "numpy", "scipy"},
    "inna_torch": {"inna_core", "array_api_compat", "torch"},
    "inna_optax": {"inna_core", "jax", "numpy", "optax"},
    # on a backend, that backend's own calls may be the fast path; on torch they are those of the torch adapter
    "inna_keras": {"inna_core", "inna_torch", "keras", "numpy", "torch", "jax", "tensorflow"},
}
"""Beside the standard library and itself."""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    """As written, wherever in a module: a fast path that is not taken here counts too."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    allowed = MAY_IMPORT[package] | {package} | sys.stdlib_module_names
    apart = {name.split(".")[-1] for name in MAY_IMPORT if name.startswith(f"{package}.")}
    for path in Path(spec.origin).parent.glob("**/*.py"):
        if path.parent.name in apart:
            continue  # a row of its own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path
