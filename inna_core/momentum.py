"""Gradient descent with heavy-ball momentum: the direction of the summary-Newton paper.

    b_{k+1}     = m b_k + g_k                                                        b_0 = 0
    theta_{k+1} = theta_k - gamma_k b_{k+1}

| symbol  | meaning                        | range  | name in code |
|---------|--------------------------------|--------|--------------|
| theta   | parameters                     |        | ``theta``    |
| g       | gradient of the loss           |        | ``grad``     |
| b       | momentum buffer                |        | ``momentum`` |
| gamma_k | step size                      | >= 0   | ``lr``       |
| m       | momentum                       | [0, 1) | ``momentum`` |

Reference: B. T. Polyak. Some methods of speeding up the convergence of iteration methods. USSR Computational
Mathematics and Mathematical Physics 4(5), 1964.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from inna_core._validation import as_array, check_parameter, check_update, checked_number, namespace
from inna_core.algorithm import Array, Namespace, Scalar


class MomentumState(NamedTuple):
    """State of `Momentum`.

    Attributes:
        momentum: the buffer b, like the parameter.
    """

    momentum: Array


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, the default direction of summary-Newton.

    It exists only for `inna_torch.NewtonSummary`, `inna_optax.newton_summary` and `inna_keras.NewtonSummary`. No host
    has an optimizer of this name, since every framework ships one (``torch.optim.SGD``, ``optax.sgd``,
    ``keras.optimizers.SGD``).

    Args:
        momentum: m in [0, 1); 0 makes the direction the gradient.

    Raises:
        ValueError, TypeError: if it is not a number in its range.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import numpy as np
        >>> algorithm, theta = Momentum(0.9), np.asarray([1.0])
        >>> delta, state = algorithm.update(theta, algorithm.init(theta), theta, lr=0.5)
        >>> delta
        array([-0.5])
    """

    momentum: Scalar = 0.9

    state_type: ClassVar[type] = MomentumState
    default_lr: ClassVar[float] = 0.1
    default_weight_decay: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", checked_number("momentum", self.momentum, below=1.0))

    def init(self, theta: Array, xp: Namespace | None = None) -> MomentumState:
        """Return the state before the first step: a buffer of zeros. See `inna_core.INNA.init`."""
        check_parameter(theta)
        return MomentumState(namespace(theta, xp).zeros_like(theta))

    def update(
        self, grad: Array, state: MomentumState, theta: Array, lr: Scalar, xp: Namespace | None = None
    ) -> tuple[Array, MomentumState]:
        """Return the increment of the parameter and the next state; see `inna_core.INNA.update`."""
        lr = checked_number("lr", lr)
        check_update(xp, MomentumState, grad, state, theta, {"lr": lr, "momentum": self.momentum})
        buffer = self.momentum * state.momentum + grad
        return as_array(-lr * buffer), MomentumState(as_array(buffer))
