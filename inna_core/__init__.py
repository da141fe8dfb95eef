"""Inertial-Newton optimizers, written once against the Python array API.

The algorithms (`INNA`, `INNAprop`) run on NumPy, CuPy, torch, JAX and array-api-strict arrays. `inna_torch`,
`inna_optax` and `inna_keras` make the same functions native optimizers of those hosts.
"""

from inna_core import compensation, dynamics, psi, schedules, weight_decay
from inna_core._version import __version__
from inna_core.algorithm import Algorithm
from inna_core.in_place import update_in_place
from inna_core.inna import INNA, INNAState
from inna_core.innaprop import INNAprop, INNApropState
from inna_core.loop import Iterate, iterate
from inna_core.momentum import Momentum, MomentumState
from inna_core.newton import (
    NewtonStatus,
    NewtonStepSizes,
    StepSizeRecord,
    StepSizes,
    StepSizeState,
    Summary,
    newton_step_sizes,
)

__all__ = [
    "INNA",
    "Algorithm",
    "INNAState",
    "INNAprop",
    "INNApropState",
    "Iterate",
    "Momentum",
    "MomentumState",
    "NewtonStatus",
    "NewtonStepSizes",
    "StepSizeRecord",
    "StepSizeState",
    "StepSizes",
    "Summary",
    "__version__",
    "compensation",
    "dynamics",
    "iterate",
    "newton_step_sizes",
    "psi",
    "schedules",
    "update_in_place",
    "weight_decay",
]
