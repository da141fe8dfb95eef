"""The public transformations, one small function each."""

from typing import Any, NamedTuple

import jax
import optax

import inna_core
from inna_optax._transform import Elementwise, floating


class INNAState(NamedTuple):
    """State of `inna`.

    Attributes:
        step: number of updates made, int32 scalar.
        velocity: pytree like the parameters; float32 where they are narrower.
        compensation: pytree like the parameters, None at leaves whose sum is not compensated; None if no leaf's is.
    """

    step: jax.Array
    velocity: optax.Updates
    compensation: optax.Updates


class INNApropState(NamedTuple):
    """State of `innaprop`.

    Attributes:
        step: number of updates made, int32 scalar.
        velocity: pytree like the parameters; float32 where they are narrower.
        second_moment: likewise.
        compensation: pytree like the parameters, None at leaves whose sum is not compensated; None if no leaf's is.
    """

    step: jax.Array
    velocity: optax.Updates
    second_moment: optax.Updates
    compensation: optax.Updates


def inna(
    learning_rate: Any = inna_core.INNA.default_lr,
    alpha: Any = None,
    beta: Any = None,
    weight_decay: Any = inna_core.INNA.default_weight_decay,
    mask: Any = None,
    *,
    momentum: Any = None,
    lead: Any = None,
    published_decay: bool = False,
    kahan_sum: bool | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return INNA, the inertial Newton algorithm, as an optax transformation.

    Warning:
        Do not chain `optax.scale_by_learning_rate` or `optax.scale(-lr)` behind it. The updates already contain the
        learning rate and the sign; multiplied by -lr once more they ascend the loss. There is no error, since a
        transformation cannot see what follows it in a chain.

    Args:
        learning_rate: step size, >= 0 (default 0.1); a float, a scalar array, or a schedule ``step -> lr``. Stable
            below `inna_core.dynamics.largest_stable_lr`, given the largest curvature.
        alpha: viscous damping, >= 0 (default 0.5); a float or a scalar array.
        beta: Newtonian damping, > 0 (default 0.1); a float or a scalar array.
        weight_decay: decoupled decay: each step subtracts learning_rate * weight_decay * params (default 0).
        mask: pytree of booleans, a prefix of the parameters' tree, or a callable ``params -> pytree``: only leaves with
            True decay.
        momentum: in [0, 1), in place of alpha and beta (default None); keep SGD's momentum and learning rate
            (`inna_core.coefficients`). Schedules of the learning rate leave momentum and lead alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum, which at a constant
            learning rate makes the steps of `optax.sgd` with Nesterov's momentum).
        published_decay: let the decay act on the velocity too, as one of the authors' two INNA files does (default
            False; see `inna_core.weight_decay`). The decay is then about 1 / (alpha beta) times as strong as
            weight_decay says.
        kahan_sum: compensate the rounding of parameter updates, at the cost of one more buffer like the parameters
            (default None: on for float16 and bfloat16 leaves, off otherwise). It needs ``params`` in `update`, and
            updates that reach `optax.apply_updates` unchanged: do not chain anything behind it.

    Returns:
        A `GradientTransformationExtraArgs`; its updates are added by `optax.apply_updates`.

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta; in `update`,
            if needed params are missing.
        TypeError: if an argument has a wrong type; in `init`, if a leaf is not floating point, real or complex.

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
    algorithm = inna_core.INNA(*map(floating, (alpha, beta, momentum, lead)))
    return Elementwise(
        algorithm, INNAState, learning_rate, weight_decay, mask, published_decay, kahan_sum
    ).transformation()


def innaprop(
    learning_rate: Any = inna_core.INNAprop.default_lr,
    alpha: Any = None,
    beta: Any = None,
    sigma: Any = inna_core.INNAprop.sigma,
    eps: Any = inna_core.INNAprop.eps,
    weight_decay: Any = inna_core.INNAprop.default_weight_decay,
    mask: Any = None,
    *,
    momentum: Any = None,
    lead: Any = None,
    published_decay: bool = False,
    kahan_sum: bool | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return INNAprop, INNA with RMS scaling of the gradient, as an optax transformation.

    Warning:
        Do not chain `optax.scale_by_learning_rate` or `optax.scale(-lr)` behind it. The updates already contain the
        learning rate and the sign; multiplied by -lr once more they ascend the loss. There is no error, since a
        transformation cannot see what follows it in a chain.

    Args:
        learning_rate: step size, >= 0 (default 1e-3); a float, a scalar array, or a schedule ``step -> lr``.
        alpha: viscous damping, >= 0 (default 0.1); a float or a scalar array.
        beta: Newtonian damping, > 0 (default 0.9); a float or a scalar array.
        sigma: decay of the second moment, in [0, 1) (default 0.999); a float or a scalar array.
        eps: added to the root of the second moment, > 0 (default 1e-8); a float or a scalar array.
        weight_decay: decoupled decay: each step subtracts learning_rate * weight_decay * params (default 0.01).
        mask: pytree of booleans, a prefix of the parameters' tree, or a callable ``params -> pytree``: only leaves with
            True decay.
        momentum: in [0, 1), in place of alpha and beta (default None): AdamW's b1; keep its learning rate and weight
            decay, and b2 as sigma (`inna_core.coefficients`). Schedules of the learning rate leave momentum and lead
            alone.
        lead: Newtonian damping in units of the time step, > 0 (default 1 + momentum).
        published_decay: let the decay act on the velocity too, as the published code does (default False). It repeats
            that code's trajectories; the decay is then about 1 / (alpha beta) times as strong as weight_decay says.
        kahan_sum: as in `inna`.

    Returns:
        A `GradientTransformationExtraArgs`; its updates are added by `optax.apply_updates`.

    Raises:
        ValueError: if a number is not finite or out of range, or momentum is given beside alpha or beta; in `update`,
            if needed params are missing.
        TypeError: if an argument has a wrong type; in `init`, if a leaf is not floating point, real or complex.

    Reference: Bolte et al., arXiv:2410.05871, 2024; the equations are in `inna_core.innaprop`.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = innaprop(learning_rate=1e-3, alpha=2.0, beta=2.0, weight_decay=0.0)
        >>> params = jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.asarray([3.0, -0.1]), optimizer.init(params), params)
        >>> [round(float(u), 6) for u in updates]  # the first step is -lr beta sign(gradient)
        [-0.002, 0.002]
    """
    algorithm = inna_core.INNAprop(*map(floating, (alpha, beta, sigma, eps, momentum, lead)))
    return Elementwise(
        algorithm, INNApropState, learning_rate, weight_decay, mask, published_decay, kahan_sum
    ).transformation()
