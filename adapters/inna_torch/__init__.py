"""Inertial-Newton optimizers for torch.

`INNA` and `INNAprop` are `torch.optim.Optimizer`s: use them where you would use `torch.optim.SGD` and `AdamW`.
"""

from inna_core import __version__
from inna_torch.monitoring import Monitor
from inna_torch.newton import NewtonSummary, summary
from inna_torch.optimizers import INNA, INNAprop
from inna_torch.portable import load_published_state, load_state, save_state

__all__ = [
    "INNA",
    "INNAprop",
    "Monitor",
    "NewtonSummary",
    "__version__",
    "load_published_state",
    "load_state",
    "save_state",
    "summary",
]
