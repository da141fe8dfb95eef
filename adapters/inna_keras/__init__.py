"""Inertial-Newton optimizers for Keras 3, on its TensorFlow, JAX and torch backends."""

from inna_core import __version__
from inna_keras.monitoring import Monitor
from inna_keras.newton import NewtonSummary, summary
from inna_keras.optimizers import INNA, INNAprop
from inna_keras.portable import load_state, save_state
from inna_keras.schedules import PowerDecay

__all__ = [
    "INNA",
    "INNAprop",
    "Monitor",
    "NewtonSummary",
    "PowerDecay",
    "__version__",
    "load_state",
    "save_state",
    "summary",
]
