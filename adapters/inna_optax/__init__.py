"""Inertial-Newton optimizers for JAX, as optax gradient transformations."""

from inna_core import __version__
from inna_optax.monitoring import MonitorState, monitor
from inna_optax.newton import NewtonSummaryState, newton_summary, summary, while_loop
from inna_optax.portable import load_state, save_state
from inna_optax.transforms import INNApropState, INNAState, inna, innaprop

__all__ = [
    "INNAState",
    "INNApropState",
    "MonitorState",
    "NewtonSummaryState",
    "__version__",
    "inna",
    "innaprop",
    "load_state",
    "monitor",
    "newton_summary",
    "save_state",
    "summary",
    "while_loop",
]
