"""Weight decay, the same for every algorithm with a velocity.

Decoupled decay multiplies theta by 1 - gamma lambda and leaves the velocity alone:

    theta_{k+1} = theta_k + d_k + delta_k                       d_k = -gamma_k lambda theta_k

where delta_k is the algorithm's own increment from theta_k, and gamma_k its lr: with momentum in place of alpha and
beta that is eta_k (`inna_core.coefficients`), so lambda means what it means in AdamW. The authors' code decays in two
other ways.

Published decay, in the repository of INNAprop, both in its INNAprop and in its INNA: theta_k is replaced by
theta_k + d_k while psi stays. By v = (1/beta - alpha) theta - psi / beta this changes the velocity:

    v_k <- v_k + (1/beta - alpha) d_k                           before the step

In the long run its effect is 1 / (alpha beta) times that of lambda. ``published=True`` selects it.

L2 regularisation, in INNA's own repository (github.com/camcastera/INNA-for-DeepLearning, for torch): the decay is
added to beta g_k, so it acts as the gradient of lambda / (2 beta) |theta|^2, in the velocity too. To repeat those runs,
leave ``weight_decay`` at 0 and add it to the gradient:

    g_k <- g_k + (lambda / beta) theta_k

| symbol | meaning                    | range | name in code     |
|--------|----------------------------|-------|------------------|
| lambda | rate of decay              | >= 0  | ``weight_decay`` |
| d      | what decay adds to theta   |       |                  |

References: I. Loshchilov, F. Hutter. Decoupled weight decay regularization. ICLR 2019.
Bolte et al., arXiv:2410.05871, 2024, algorithm 2.
"""

from typing import Any

from inna_core._validation import as_array, check_parameter, check_scalars, checked_number
from inna_core.algorithm import Array, Namespace, Scalar


def update_with_decay(
    algorithm: Any,
    grad: Array,
    state: Any,
    theta: Array,
    lr: Scalar,
    weight_decay: Scalar,
    *,
    published: bool = False,
    xp: Namespace | None = None,
) -> tuple[Array, Any]:
    """Return the increment of the parameter, decay included, and the next state.

    Args:
        algorithm: an algorithm of this package whose state has a velocity.
        grad: gradient at theta, like theta in shape, dtype and device.
        state: from the algorithm's `init` or the previous update.
        theta: parameter, any shape, real or complex floating point.
        lr: the algorithm's, >= 0, a float or a 0-d array of theta's dtype.
        weight_decay: rate lambda >= 0, a float or a 0-d array of theta's dtype.
        published: decay as the published code of INNAprop does, to repeat its experiments (see above).
        xp: array namespace; inferred from the arrays by default.

    Returns:
        delta, such that theta + delta is the next iterate, and the next state.

    Raises:
        ValueError, TypeError: as the algorithm's `update`; ValueError for the published decay of an algorithm without
            alpha and beta.

    Example:
        >>> import numpy as np
        >>> from inna_core import INNA
        >>> inna, theta = INNA(), np.asarray([2.0])
        >>> delta, state = update_with_decay(inna, 0 * theta, inna.init(theta), theta, 0.01, 0.1)
        >>> theta + delta, state.velocity
        (array([1.998]), array([0.]))
    """
    lr, weight_decay = checked_number("lr", lr), checked_number("weight_decay", weight_decay)
    if isinstance(weight_decay, float) and weight_decay == 0.0:
        return algorithm.update(grad, state, theta, lr, xp)
    check_parameter(theta)
    check_scalars({"lr": lr, "weight_decay": weight_decay}, theta)
    d = -(lr * weight_decay) * theta
    if published:
        check_published_decay(algorithm)
        state = state._replace(velocity=state.velocity + (1 / algorithm.beta - algorithm.alpha) * d)
    delta, state = algorithm.update(grad, state, theta, lr, xp)
    return as_array(delta + d), state


def check_published_decay(algorithm: Any) -> None:
    """Refuse an algorithm without alpha and beta: the equation of the published decay needs them."""
    if getattr(algorithm, "beta", None) is None:
        raise ValueError("Invalid published_decay: True (expected False where alpha and beta are not given)")
