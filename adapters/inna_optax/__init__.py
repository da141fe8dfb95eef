"""Inertial-Newton optimizers for JAX, as optax gradient transformations."""

from inna_optax.newton_summary import NewtonSummaryState, newton_summary, summary, while_loop
from inna_optax.transforms import INNAState, inna

__all__ = ["INNAState", "NewtonSummaryState", "inna", "newton_summary", "summary", "while_loop"]
