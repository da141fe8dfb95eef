"""The version of the distribution that all packages here belong to; pyproject.toml holds the number."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("inna")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"
