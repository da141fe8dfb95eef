"""Summary-Newton for JAX: the derivatives of a loss along a direction, and an optimizer without a learning rate."""

from inna_optax.newton.derivatives import summary
from inna_optax.newton.transform import NewtonSummaryState, newton_summary, while_loop

__all__ = ["NewtonSummaryState", "newton_summary", "summary", "while_loop"]
