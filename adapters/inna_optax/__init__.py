"""Inertial-Newton optimizers for JAX, as optax gradient transformations."""

from inna_optax.transforms import INNAState, inna

__all__ = ["INNAState", "inna"]
