"""Inertial-Newton optimizers for torch.

`INNA` is a `torch.optim.Optimizer`: use it where you would use `torch.optim.SGD`.
"""

from inna_torch.newton_summary import NewtonSummary, summary
from inna_torch.optimizers import INNA

__all__ = ["INNA", "NewtonSummary", "summary"]
