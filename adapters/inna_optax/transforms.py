"""The public transformations, one small function each."""

from typing import Any, NamedTuple

import jax
import optax

import inna_core
from inna_optax._shell import elementwise


class INNAState(NamedTuple):
    """State of `inna`.

    Attributes:
        step: number of updates made, int32 scalar.
        velocity: pytree like the parameters.
    """

    step: jax.Array
    velocity: optax.Updates


def inna(
    learning_rate: Any = inna_core.INNA.default_lr,
    alpha: Any = inna_core.INNA.alpha,
    beta: Any = inna_core.INNA.beta,
    weight_decay: Any = inna_core.INNA.default_weight_decay,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return INNA, the inertial Newton algorithm, as an optax transformation.

    Args:
        learning_rate: step size, >= 0 (default 0.1); a float, a scalar array, or a schedule ``step -> lr``. It is
            evaluated inside, so do not chain `optax.scale_by_learning_rate`.
        alpha: viscous damping, >= 0 (default 0.5); a float or a scalar array.
        beta: Newtonian damping, > 0 (default 0.1); a float or a scalar array.
        weight_decay: decoupled decay: each step takes learning_rate * weight_decay * params away (default 0).
        mask: pytree of booleans, a prefix of the parameters' tree, or a callable ``params -> pytree``: False where
            nothing decays.

    Returns:
        A `GradientTransformationExtraArgs`; its updates are added by `optax.apply_updates`.

    Raises:
        ValueError: if a number is not finite or out of range; in `update`, if weight decay needs missing params.
        TypeError: if an argument has a wrong type; in `init`, if a leaf is not real floating point.

    Reference: Castera et al., JMLR 22(134), 2021; the equations are in `inna_core.inna`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> optimizer = inna(learning_rate=0.1, alpha=0.5, beta=0.1)
        >>> params = {"w": jnp.ones(3)}
        >>> state = optimizer.init(params)
        >>> grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        >>> updates, state = optimizer.update(grads, state, params)
        >>> params = optax.apply_updates(params, updates)
        >>> int(state.step)
        1
    """
    return elementwise(inna_core.INNA(alpha, beta), INNAState, learning_rate, weight_decay, mask)
