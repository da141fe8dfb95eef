"""Summary-Newton for Keras: the derivatives of a loss along a direction, and a trainer without a learning rate."""

from inna_keras.newton.derivatives import summary
from inna_keras.newton.trainer import NewtonSummary

__all__ = ["NewtonSummary", "summary"]
