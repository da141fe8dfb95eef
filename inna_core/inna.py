"""INNA, the inertial Newton algorithm.

    theta_{k+1} = theta_k + gamma_k (v_k - beta g_k)
    v_{k+1}     = (1 - alpha gamma_k) v_k - gamma_k (1 - alpha beta) g_k            v_0 = 0

| symbol  | meaning                                              | range | name in code     |
|---------|------------------------------------------------------|-------|------------------|
| theta   | parameters                                           |       | ``theta``        |
| g       | (sub)gradient of the loss J at theta_k, may be noisy |       | ``grad``         |
| v       | velocity, theta' + beta grad J                       |       | ``velocity``     |
| gamma_k | step size                                            | >= 0  | ``lr``           |
| alpha   | viscous damping                                      | >= 0  | ``alpha``        |
| beta    | Newtonian damping                                    | > 0   | ``beta``         |

The paper writes the same recurrence with a phase variable psi = (1 - alpha beta) theta - beta v:

    theta_{k+1} = theta_k + gamma_k ((1/beta - alpha) theta_k - psi_k / beta - beta g_k)
    psi_{k+1}   = psi_k   + gamma_k ((1/beta - alpha) theta_k - psi_k / beta)       psi_0 = (1 - alpha beta) theta_0

Both discretise theta'' + alpha theta' + beta Hess J(theta) theta' + grad J(theta) = 0 and are equal in exact
arithmetic. The velocity is stored because it loses less to rounding, does not change when gradients vanish, and does
not push back when something else (weight decay, a constraint, loaded weights) moves theta. ``inna_core.psi`` converts.

For complex parameters g is the direction of steepest ascent, dJ/dRe(theta) + i dJ/dIm(theta): the gradient in torch's
convention, and the conjugate of what `jax.grad` returns. Real and imaginary parts then move as two real parameters.

alpha * lr is not limited: at 1 the velocity forgets its past, above 1 it changes sign at each step.

Momentum and lead may be given in place of alpha and beta; lr is then that of SGD: see `inna_core.coefficients`.

Reference: C. Castera, J. Bolte, C. Févotte, E. Pauwels. An Inertial Newton Algorithm for Deep Learning.
Journal of Machine Learning Research 22(134), 2021.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from inna_core._validation import as_array, check_parameter, check_update, checked_number, namespace
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.coefficients import Coefficients, coefficients, given, set_parameters


class INNAState(NamedTuple):
    """State of `INNA`.

    Attributes:
        velocity: v, like the parameter in shape, dtype and device.
    """

    velocity: Array


@dataclass(frozen=True)
class INNA:
    """The inertial Newton algorithm, given by its dampings, or by momentum and lead.

    Args:
        alpha: viscous damping, >= 0, per unit of time (lr is a time step); a float or a 0-d array (default 0.5).
        beta: Newtonian damping, > 0, a time; a float or a 0-d array (default 0.1).
        momentum: in [0, 1), in place of alpha and beta; lr is then that of SGD (`inna_core.coefficients`).
        lead: > 0, Newtonian damping in units of the time step, beta / gamma (default 1 + momentum).

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta.
        TypeError: if an argument is neither a real number nor a 0-d array.

    Reference: Castera et al., JMLR 22(134), 2021.

    Example:
        >>> import numpy as np
        >>> inna = INNA(alpha=0.5, beta=0.1)
        >>> theta = np.asarray([1.0, -2.0])
        >>> state = inna.init(theta)
        >>> for _ in range(400):
        ...     delta, state = inna.update(theta, state, theta, lr=0.1)  # gradient of |theta|^2 / 2
        ...     theta = theta + delta
        >>> bool(np.abs(theta).max() < 1e-2)
        True
    """

    alpha: Scalar = None
    beta: Scalar = None
    momentum: Scalar = None
    lead: Scalar = None

    state_type: ClassVar[type] = INNAState
    default_lr: ClassVar[float] = 0.1
    default_weight_decay: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        set_parameters(self, alpha=0.5, beta=0.1)

    def coefficients(self, lr: Scalar, xp: Namespace | None = None) -> Coefficients:
        """Return the coefficients of a step, for a float or a 0-d array lr."""
        return coefficients(self, lr, 1.0, xp)

    def init(self, theta: Array, xp: Namespace | None = None) -> INNAState:
        """Return the state before the first step: zero velocity.

        Args:
            theta: parameter, any shape, real or complex floating point.
            xp: array namespace; inferred from theta by default.

        Returns:
            The state, like theta in shape, dtype and device.

        Raises:
            TypeError: if theta is not a floating-point array.
        """
        check_parameter(theta)
        return INNAState(velocity=namespace(theta, xp).zeros_like(theta))

    def update(
        self, grad: Array, state: INNAState, theta: Array, lr: Scalar, xp: Namespace | None = None
    ) -> tuple[Array, INNAState]:
        """Return the increment of the parameter and the next state; the arguments stay unchanged.

        Args:
            grad: gradient at theta, like theta in shape, dtype and device.
            state: from `init` or the previous `update`.
            theta: parameter, any shape, real or complex floating point.
            lr: step size gamma_k, or eta_k with momentum, >= 0; a float or a 0-d array of theta's dtype (of its real
                dtype where it is complex). Stable below `inna_core.dynamics.largest_stable_lr`.
            xp: array namespace; inferred from the arrays by default.

        Returns:
            delta, such that theta + delta is the next iterate, and the next state, all like theta.

        Raises:
            ValueError: if lr is negative or not finite, or a shape differs from theta's.
            TypeError: if a dtype or a namespace differs from theta's, or theta is not floating point.
        """
        lr = checked_number("lr", lr)
        check_update(xp, INNAState, grad, state, theta, given(self, lr))
        delta, v = inertial_step(grad, state.velocity, self.coefficients(lr, xp))
        return as_array(delta), INNAState(velocity=as_array(v))


def inertial_step(g: Array, v: Array, by: Coefficients) -> tuple[Array, Array]:
    """Return gamma_k (v_k - beta g_k), which is added to theta_k, and v_{k+1}."""
    gamma, beta, alpha_gamma, alpha_beta = by
    delta = gamma * (v - beta * g)
    v_next = (1 - alpha_gamma) * v - gamma * (1 - alpha_beta) * g
    return delta, v_next
