"""The papers' step-size schedule as a Keras `LearningRateSchedule`."""

from typing import Any

import keras
from keras import ops

from inna_core import schedules


@keras.saving.register_keras_serializable(package="inna")
class PowerDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The decaying step size learning_rate (step + 1)^(-q), see `inna_core.schedules.PowerDecay`.

    Args:
        learning_rate: step size at step 0, > 0.
        q: exponent, >= 0.

    Raises:
        ValueError, TypeError: if an argument is not a number in its range.

    Reference: Castera et al., JMLR 22(134), 2021, section 5.

    Example:
        >>> schedule = PowerDecay(0.1, q=0.5)
        >>> round(float(schedule(3)), 6)
        0.05
    """

    def __init__(self, learning_rate: float, q: float) -> None:
        self._decay = schedules.PowerDecay(learning_rate, q)

    def __call__(self, step: Any) -> Any:
        """Return the step size of a step, counted from 0, as a scalar tensor."""
        return self._decay(ops.cast(step, keras.config.floatx()))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make a schedule like this one."""
        return {"learning_rate": self._decay.lr, "q": self._decay.q}
