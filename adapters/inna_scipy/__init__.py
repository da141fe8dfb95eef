"""INNA as a method of `scipy.optimize.minimize`."""

from inna_core import __version__
from inna_scipy.minimizer import inna

__all__ = ["__version__", "inna"]
