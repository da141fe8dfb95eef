"""The public Keras optimizers, one small class each."""

from typing import Any

import keras

import inna_core
from inna_keras._base import Elementwise, hyperparameter


@keras.saving.register_keras_serializable(package="inna")
class INNA(Elementwise):
    """INNA, the inertial Newton algorithm, as a Keras optimizer.

    Args:
        learning_rate: step size, >= 0 (default 0.1); a float, a `LearningRateSchedule`, or a callable without
            arguments. Stable below `inna_core.dynamics.largest_stable_lr`, given the largest curvature.
        alpha: viscous damping, >= 0 (default 0.5).
        beta: Newtonian damping, > 0 (default 0.1).
        weight_decay: decoupled decay: each step subtracts learning_rate * weight_decay * variable (default None).
            `exclude_from_weight_decay` exempts variables.
        kahan_sum: compensate the rounding of updates, at the cost of one more buffer like the variable (default None:
            on for float16 and bfloat16 variables, off otherwise).
        name: the optimizer's name (default None: "inna", then "inna_1" and so on, as Keras numbers its own).
        momentum: in [0, 1), in place of alpha and beta (default None); keep SGD's momentum and learning rate
            (`inna_core.coefficients`). Schedules of the learning rate leave momentum and lead alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum, which at a constant
            learning rate makes the steps of `keras.optimizers.SGD` with Nesterov's momentum).
        published_decay: let the decay act on the velocity too, as one of the authors' two INNA files does (default
            False; see `inna_core.weight_decay`). The decay is then about 1 / (alpha beta) times as strong as
            weight_decay says.
        **kwargs: what every Keras optimizer takes: ``clipnorm``, ``clipvalue``, ``global_clipnorm``, ``use_ema``,
            ``ema_momentum``, ``ema_overwrite_frequency``, ``loss_scale_factor``, ``gradient_accumulation_steps``.

    Learning rate, dampings and weight decay are attributes that can be read and set. Functions compiled before keep the
    old dampings and decay.

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta.
        TypeError: if an argument has a wrong type.

    Reference: Castera et al., JMLR 22(134), 2021; the equations are in `inna_core.inna`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=INNA(learning_rate=0.1, alpha=0.5, beta=0.1), loss="mse")
    """

    alpha, beta, momentum, lead = map(hyperparameter, ("alpha", "beta", "momentum", "lead"))

    def __init__(
        self,
        learning_rate: Any = inna_core.INNA.default_lr,
        alpha: float | None = None,
        beta: float | None = None,
        weight_decay: float | None = None,
        kahan_sum: bool | None = None,
        name: str | None = None,
        *,
        momentum: float | None = None,
        lead: float | None = None,
        published_decay: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inna_core.INNA(alpha, beta, momentum, lead),
            learning_rate,
            weight_decay,
            published_decay=published_decay,
            kahan_sum=kahan_sum,
            name=name,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="inna")
class INNAprop(Elementwise):
    """INNAprop, INNA with RMS scaling of the gradient, as a Keras optimizer.

    Args:
        learning_rate: step size, >= 0 (default 1e-3); a float, a `LearningRateSchedule`, or a callable without
            arguments.
        alpha: viscous damping, >= 0 (default 0.1).
        beta: Newtonian damping, > 0 (default 0.9).
        sigma: decay of the second moment, in [0, 1) (default 0.999).
        eps: added to the root of the second moment, > 0 (default 1e-8).
        weight_decay: decoupled decay: each step subtracts learning_rate * weight_decay * variable (default 0.01).
            `exclude_from_weight_decay` exempts variables.
        kahan_sum: compensate the rounding of updates, at the cost of one more buffer like the variable (default None:
            on for float16 and bfloat16 variables, off otherwise).
        name: as in `INNA`.
        momentum: in [0, 1), in place of alpha and beta (default None): AdamW's beta_1; keep its learning rate and
            weight decay, and beta_2 as sigma (`inna_core.coefficients`). Schedules of the learning rate leave momentum
            and lead alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum).
        published_decay: let the decay act on the velocity too, as the published code does (default False). It repeats
            that code's trajectories; the decay is then about 1 / (alpha beta) times as strong as weight_decay says.
        **kwargs: what every Keras optimizer takes, see `INNA`.

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta.
        TypeError: if an argument has a wrong type.

    Reference: Bolte et al., arXiv:2410.05871, 2024; the equations are in `inna_core.innaprop`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=INNAprop(learning_rate=1e-3, alpha=2.0, beta=2.0), loss="mse")
    """

    alpha, beta, sigma, eps, momentum, lead = map(hyperparameter, ("alpha", "beta", "sigma", "eps", "momentum", "lead"))

    def __init__(
        self,
        learning_rate: Any = inna_core.INNAprop.default_lr,
        alpha: float | None = None,
        beta: float | None = None,
        sigma: float = inna_core.INNAprop.sigma,
        eps: float = inna_core.INNAprop.eps,
        weight_decay: float | None = inna_core.INNAprop.default_weight_decay,
        kahan_sum: bool | None = None,
        name: str | None = None,
        *,
        momentum: float | None = None,
        lead: float | None = None,
        published_decay: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inna_core.INNAprop(alpha, beta, sigma, eps, momentum, lead),
            learning_rate,
            weight_decay,
            published_decay=published_decay,
            kahan_sum=kahan_sum,
            name=name,
            **kwargs,
        )
