"""INNAprop: INNA driven by gradients that are scaled as in RMSprop.

    s_{k+1}     = sigma s_k + (1 - sigma) |g_k|^2                                   s_0 = 0
    q_k         = g_k / (sqrt(s_{k+1} / (1 - sigma^(k+1))) + eps)
    theta_{k+1} = theta_k + gamma_k (v_k - beta q_k)                                } INNA with q_k
    v_{k+1}     = (1 - alpha gamma_k) v_k - gamma_k (1 - alpha beta) q_k    v_0 = 0 } for its gradient

| symbol                                | meaning                                  | range  | name in code        |
|---------------------------------------|------------------------------------------|--------|---------------------|
| theta, g, v, gamma_k, alpha, beta     | as in `inna_core.inna`                   |        |                     |
| s                                     | moving average of the squared gradients  | >= 0   | ``second_moment``   |
| sigma                                 | its decay per step                       | [0, 1) | ``sigma``           |
| eps                                   | keeps the quotient finite                | > 0    | ``eps``             |
| k                                     | steps made so far                        | >= 0   | ``step``            |
| q                                     | scaled gradient                          |        |                     |

The paper writes the recurrence with psi, and its coefficients divide by beta - gamma_k. In terms of the velocity the
trajectory is the same, and finite for every step size.

The modulus matters for complex parameters only: multiplying g by a phase multiplies q by it, as in `optax.adam`.
torch's optimizers scale real and imaginary parts separately, as two parameters. For g see `inna_core.inna`.

Reference: J. Bolte, R. Boustany, E. Pauwels, A. Purica. A second-order-like optimizer with adaptive gradient scaling
for deep learning. arXiv:2410.05871, 2024.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from inna_core._validation import (
    as_array,
    check_parameter,
    check_update,
    checked_number,
    is_complex,
    is_narrow,
    namespace,
    squared_modulus,
)
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.coefficients import Coefficients, coefficients, given, set_parameters
from inna_core.inna import inertial_step


class INNApropState(NamedTuple):
    """State of `INNAprop`.

    Attributes:
        velocity: v, like the parameter in shape, dtype and device.
        second_moment: s, like the parameter.
        step: number of steps made, a 0-d array of the parameter's real dtype (float32 for float16 and bfloat16, which
            can count to 2048 and 256 only).
    """

    velocity: Array
    second_moment: Array
    step: Array


@dataclass(frozen=True)
class INNAprop:
    """INNA with RMS scaling of the gradient, given by its dampings, or by momentum and lead.

    Args:
        alpha: viscous damping, >= 0; a float or a 0-d array (default 0.1).
        beta: Newtonian damping, > 0; a float or a 0-d array (default 0.9).
        sigma: decay of the second moment, in [0, 1); a float or a 0-d array.
        eps: added to the root of the second moment, > 0; a float or a 0-d array.
        momentum: in [0, 1), in place of alpha and beta; lr is then that of AdamW (`inna_core.coefficients`).
        lead: > 0, Newtonian damping in units of the time step, beta / gamma (default 1 + momentum).

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta.
        TypeError: if an argument is neither a real number nor a 0-d array.

    Reference: Bolte et al., arXiv:2410.05871, 2024.

    Example:
        >>> import numpy as np
        >>> innaprop = INNAprop(alpha=2.0, beta=2.0)
        >>> theta = np.asarray([1.0, -20.0])
        >>> state = innaprop.init(theta)
        >>> delta, state = innaprop.update(theta, state, theta, lr=0.01)  # gradient of |theta|^2 / 2
        >>> np.round(delta, 6)  # the first step is -lr beta sign(gradient)
        array([-0.02,  0.02])
    """

    alpha: Scalar = None
    beta: Scalar = None
    sigma: Scalar = 0.999
    eps: Scalar = 1e-8
    momentum: Scalar = None
    lead: Scalar = None

    state_type: ClassVar[type] = INNApropState
    default_lr: ClassVar[float] = 1e-3
    default_weight_decay: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        set_parameters(self, alpha=0.1, beta=0.9)
        object.__setattr__(self, "sigma", checked_number("sigma", self.sigma, below=1.0))
        object.__setattr__(self, "eps", checked_number("eps", self.eps, positive=True))

    def coefficients(self, lr: Scalar, xp: Namespace | None = None) -> Coefficients:
        """Return the coefficients of a step, for a float or a 0-d array lr."""
        return coefficients(self, lr, 1.0 if self.momentum is None else 1 - self.momentum, xp)

    def init(self, theta: Array, xp: Namespace | None = None) -> INNApropState:
        """Return the state before the first step: all zero.

        Args:
            theta: parameter, any shape, real or complex floating point.
            xp: array namespace; inferred from theta by default.

        Returns:
            The state, on theta's device.

        Raises:
            TypeError: if theta is not a floating-point array.
        """
        check_parameter(theta)
        ns = namespace(theta, xp)
        # a sum is 0-d and on theta's device in every namespace
        step = squared_modulus(ns.sum(ns.zeros_like(theta)), ns)
        step = ns.astype(step, ns.float32) if is_narrow(theta) else step
        return INNApropState(ns.zeros_like(theta), ns.zeros_like(theta), as_array(step))

    def denominators(self, state: INNApropState, xp: Namespace | None = None) -> Array:
        """Return what the last step divided its gradient by: real, shaped like the parameter. Call it after a step."""
        s, ns = state.second_moment, namespace(state.second_moment, xp)
        return scale(ns.real(s) if is_complex(s) else s, state.step, self.sigma, self.eps, ns)

    def update(
        self, grad: Array, state: INNApropState, theta: Array, lr: Scalar, xp: Namespace | None = None
    ) -> tuple[Array, INNApropState]:
        """Return the increment of the parameter and the next state; the arguments stay unchanged.

        Args:
            grad: gradient at theta, like theta in shape, dtype and device.
            state: from `init` or the previous `update`.
            theta: parameter, any shape, real or complex floating point.
            lr: step size gamma_k, or eta_k with momentum, >= 0; a float or a 0-d array of theta's dtype (of its real
                dtype where it is complex).
            xp: array namespace; inferred from the arrays by default.

        Returns:
            delta, such that theta + delta is the next iterate, and the next state, all like theta. The arithmetic of
            float16 and bfloat16 arrays is done in float32, where neither the square nor eps underflows.

        Raises:
            ValueError: if lr is negative or not finite, or a shape differs from theta's.
            TypeError: if a dtype or a namespace differs from theta's, or theta is not floating point.
        """
        algorithm, lr = self, checked_number("lr", lr)
        check_update(xp, INNApropState, grad, state, theta, given(self, lr))
        ns = namespace(theta, xp)
        g, v, s = grad, state.velocity, state.second_moment
        if is_narrow(theta):
            g, v, s = (ns.astype(x, ns.float32) for x in (g, v, s))
            wide = {k: x if type(x) is float else ns.astype(x, ns.float32) for k, x in given(self, lr).items()}
            lr, algorithm = wide.pop("lr"), INNAprop(**wide)
        if is_complex(theta):
            s = ns.real(s)
        if state.step.dtype != s.dtype:
            raise TypeError(f"Invalid state.step: dtype {state.step.dtype} (expected {s.dtype})")
        sigma, eps = algorithm.sigma, algorithm.eps

        k = state.step + 1
        s = sigma * s + (1 - sigma) * squared_modulus(g, ns)
        q = g / scale(s, k, sigma, eps, ns)
        delta, v = inertial_step(q, v, algorithm.coefficients(lr, ns))

        if s.dtype != theta.dtype:
            delta, v, s = (ns.astype(x, theta.dtype) for x in (delta, v, s))
        return as_array(delta), INNApropState(velocity=as_array(v), second_moment=as_array(s), step=as_array(k))


def scale(s: Array, k: Array, sigma: Scalar, eps: Scalar, ns: Namespace) -> Array:
    """Return the denominator of step k, counted from 1, given the second moment after that step."""
    s_hat = s * (1 / bias_correction(sigma, k, ns))  # a product with a scalar saves a division per element
    return ns.sqrt(s_hat) + eps


def bias_correction(sigma: Scalar, k: Any, ns: Namespace) -> Any:
    """Return 1 - sigma^k; the difference itself would lose three digits in float32 in the first steps."""
    return -ns.expm1(k * log(sigma, ns))


def log(sigma: Scalar, ns: Namespace) -> Scalar:
    if isinstance(sigma, float):  # in double precision, independently of the arrays'
        return math.log(sigma) if sigma > 0 else -math.inf
    return ns.log(sigma)
