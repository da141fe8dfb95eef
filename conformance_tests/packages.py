"""Skips what needs a package that is not installed, without importing it: Keras chooses its backend when imported."""

import importlib.util

import pytest


def skip_without(*packages: str) -> None:
    """Skip a test, or the module that is being imported, where one of these import names is not found."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed", allow_module_level=True)
