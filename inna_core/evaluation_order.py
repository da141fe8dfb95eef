"""An order of evaluation in which XLA on one CPU updates parameters and state in place.

An algorithm computes the increment and the next state from the present state. XLA on a CPU makes one loop for each
output. It inserts copies before it orders the loops, so it copies every buffer that one loop overwrites and another
still reads; the step then takes three times as long. XLA also computes an expression that two outputs share, such as
INNAprop's scaled gradient, only once, and stores it in a temporary as large as the parameter.

`update_state_after_params` fixes the order by data dependencies: first the next parameter, then the fields of the state
one after another, each by a separate call on the present state. So each field can be overwritten as soon as its next
value is known. The fields must be declared such that none needs the present value of an earlier one. Only XLA on one
CPU gains from it: a GPU makes one kernel of the plain order, and devices that share a parameter would have to
communicate.
"""

from collections.abc import Callable
from typing import Any

from inna_core.algorithm import Array, Namespace

Update = Callable[[Array, Any], tuple[Array, Any]]
"""From gradient and state to the increment, weight decay included, and the next state."""


def update_state_after_params(
    update: Update, grad: Array, state: Any, theta: Array, xp: Namespace
) -> tuple[Array, Any]:
    """Return ``update(grad, state)``, computed in the order: next parameter, then one field of the state after another.

    Args:
        update: an algorithm's update of one parameter, with everything but gradient and state bound.
        grad: gradient at theta, any shape, real or complex floating point.
        state: NamedTuple; its field ``step``, if any, is a scalar and takes no part in the order.
        theta: parameter, like grad. No copy is avoided if the next state depends on it, as with the published decay.
        xp: namespace with ``abs``, ``sign``, ``where``, ``zeros_like`` and ``ones_like``.

    Returns:
        The increment and the next state, equal to the plain update's.

    Example:
        >>> import numpy as np
        >>> from inna_core import INNA
        >>> inna, theta, grad = INNA(), np.asarray([2.0]), np.asarray([1.0])
        >>> update = lambda grad, state: inna.update(grad, state, theta, 0.1)
        >>> delta, state = update_state_after_params(update, grad, inna.init(theta), theta, np)
        >>> delta, state.velocity
        (array([-0.01]), array([-0.095]))
    """
    delta, next_state = update(grad, state)
    if 0 in theta.shape:
        return delta, next_state
    written, fields = theta + delta, {}
    for name in state._fields:
        if name != "step":
            # a gradient of its own also keeps XLA from sharing expressions between the fields
            _, after = update(grad * one_after(written, xp), state)
            written = fields[name] = getattr(after, name)
    return delta, next_state._replace(**fields)


def one_after(written: Array, xp: Namespace) -> Array:
    """Return 1, computed from an element of an array, so that XLA cannot use it before the array is written."""
    size = xp.abs(written[(0,) * len(written.shape)])
    # never true, but XLA cannot prove it (as it can prove |x| >= 0): adds a data dependency
    never = xp.sign(size) > 1
    return xp.where(never, xp.zeros_like(size), xp.ones_like(size))
