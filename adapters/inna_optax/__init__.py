"""Inertial-Newton optimizers for JAX, as optax gradient transformations."""

from inna_optax.transforms import INNApropState, INNAState, inna, innaprop

__all__ = ["INNAState", "INNApropState", "inna", "innaprop"]
