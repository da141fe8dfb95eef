"""Summary-Newton: one step size per group of parameters, from second and third derivatives along a direction."""

from inna_core.newton.controller import (
    DAMPING,
    StepSizeRecord,
    StepSizes,
    StepSizeState,
    checked_algorithm,
    checked_rule,
)
from inna_core.newton.step_sizes import (
    NewtonStatus,
    NewtonStepSizes,
    newton_step_sizes,
    nonnegative_step_sizes,
    proportional_step_sizes,
)
from inna_core.newton.steps import direction, next_state, trusted_step
from inna_core.newton.summary import Summary, check_order, partition

__all__ = [
    "DAMPING",
    "NewtonStatus",
    "NewtonStepSizes",
    "StepSizeRecord",
    "StepSizeState",
    "StepSizes",
    "Summary",
    "check_order",
    "checked_algorithm",
    "checked_rule",
    "direction",
    "newton_step_sizes",
    "next_state",
    "nonnegative_step_sizes",
    "partition",
    "proportional_step_sizes",
    "trusted_step",
]
