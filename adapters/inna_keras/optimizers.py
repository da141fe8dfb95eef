"""The public Keras optimizers, one small class each."""

from typing import Any

import keras

import inna_core
from inna_keras._shell import Elementwise


@keras.saving.register_keras_serializable(package="inna")
class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a Keras optimizer.

    Args:
        learning_rate: step size, >= 0 (default 0.1); a float, a `LearningRateSchedule`, or a callable without
            arguments.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step multiplies a variable by 1 - learning_rate * weight_decay (default
            None). `exclude_from_weight_decay` spares variables.
        name: the optimizer's name.
        **kwargs: what every Keras optimizer takes: ``clipnorm``, ``clipvalue``, ``global_clipnorm``, ``use_ema``,
            ``ema_momentum``, ``ema_overwrite_frequency``, ``loss_scale_factor``, ``gradient_accumulation_steps``.

    Raises:
        ValueError: if a number is not finite or out of range.
        TypeError: if an argument has a wrong type.

    Reference: Castera et al., JMLR 22(134), 2021; the equations are in `inna_core.inna`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=INNA(learning_rate=0.1, alpha=0.5, beta=0.1), loss="mse")
    """

    def __init__(
        self,
        learning_rate: Any = inna_core.INNA.default_lr,
        alpha: float = inna_core.INNA.alpha,
        beta: float = inna_core.INNA.beta,
        weight_decay: float | None = None,
        name: str = "inna",
        **kwargs: Any,
    ) -> None:
        super().__init__(inna_core.INNA(alpha, beta), learning_rate, weight_decay, name=name, **kwargs)
