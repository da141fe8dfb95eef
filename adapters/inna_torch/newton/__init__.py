"""Summary-Newton for torch: the derivatives of a loss along a direction, and an optimizer without a learning rate."""

from inna_torch.newton.derivatives import summary
from inna_torch.newton.optimizer import NewtonSummary

__all__ = ["NewtonSummary", "summary"]
