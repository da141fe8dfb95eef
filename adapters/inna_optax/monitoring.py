"""Energy, velocity and sharpness of a training run, in the state of a transformation around `inna` or `innaprop`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from inna_core._validation import is_complex
from inna_core.algorithm import state_of
from inna_core.monitor import (
    EVERY,
    ITERATIONS,
    NAN,
    SHARPNESS_EVERY,
    Metrics,
    check_periods,
    largest_eigenvalue,
    measured,
    velocity_squares,
)
from inna_optax._transform import Elementwise, as_leaf, cond, in_dtype, scalar_dtype


class MonitorState(NamedTuple):
    """State of `monitor`.

    Attributes:
        inner_state: of the monitored transformation.
        metrics: `inna_core.monitor.Metrics`, the last sample; NaN, with step 0, before the first.
    """

    inner_state: Any
    metrics: Metrics


def monitor(
    inner: optax.GradientTransformation,
    *,
    every: int = EVERY,
    sharpness_every: int = SHARPNESS_EVERY,
    iterations: int = ITERATIONS,
) -> optax.GradientTransformationExtraArgs:
    """Wrap `inna` or `innaprop` in a transformation with the same updates, whose state holds the last sample.

    Every `every` steps ``update`` measures the state and parameters that it is given, before the update. It takes two
    more arguments, named as in optax' line searches; numbers that need a missing one are NaN.

    * ``value``: the loss at params, for the energy.
    * ``value_fn``: the loss as a function of params, on a batch of your choice, for the sharpness, and for the energy
      if there is no ``value``.

    Put it directly around `inna` or `innaprop`, and chain, mask or inject outside, as in
    ``optax.chain(optax.clip_by_global_norm(1.0), monitor(inna(0.1)))``. Inside `optax.partition` and `optax.masked`
    ``value_fn`` is called with the masked parameters. ``optax.tree.get(state, "metrics")`` finds the last sample.

    Args:
        inner: what `inna` or `innaprop` returned.
        every: steps between two samples.
        sharpness_every: steps between two samples with the sharpness, a multiple of `every`.
        iterations: products of the Hessian with a vector for one estimate of the sharpness.

    Returns:
        A `GradientTransformationExtraArgs` with the updates of `inner`.

    Raises:
        TypeError: if inner is not of `inna` or `innaprop`, or a number is not an int.
        ValueError: if a number is out of range; in ``update``, if value is not a scalar, or params are missing.

    Reference: the equations are in `inna_core.monitor`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from inna_optax import inna
        >>> loss = lambda params: jnp.sum(jnp.asarray([1.0, 9.0]) * params**2) / 2
        >>> optimizer, params = monitor(inna(0.1, momentum=0.9), every=10, sharpness_every=10), jnp.ones(2)
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grads = jax.value_and_grad(loss)(params)
        ...     updates, state = optimizer.update(grads, state, params, value=value, value_fn=loss)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(21):
        ...     params, state = step(params, state)
        >>> int(state.metrics.step), round(float(state.metrics.sharpness), 3)
        (20, 9.0)
    """
    transform = getattr(getattr(inner, "update", None), "__self__", None)
    if not isinstance(transform, Elementwise) or not hasattr(transform.algorithm, "coefficients"):
        raise TypeError(f"Invalid inner: {inner!r:.80} (expected what inna or innaprop returned, not yet chained)")
    check_periods(every, sharpness_every, iterations)

    def init(params: Any) -> Any:
        dtype = scalar_dtype(params)
        numbers = {name: jnp.full((), NAN, dtype) for name in Metrics._fields}  # separate arrays, to be donated
        return MonitorState(inner.init(params), Metrics(**{**numbers, "step": jnp.zeros((), jnp.int32)}))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, value_fn: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        if not isinstance(state, MonitorState):
            raise TypeError(f"Invalid state: {type(state).__name__} (expected MonitorState, as init returns it)")
        if value_fn is not None and params is None:
            raise ValueError("Invalid params: None (expected the current parameters, beside value_fn)")
        if value is not None and jnp.shape(value) != ():
            raise ValueError(f"Invalid value: shape {jnp.shape(value)} (expected a scalar)")
        step = state.inner_state.step
        dtype = state.metrics.lr.dtype
        loss_fn: Any = value_fn

        def sample() -> Metrics:
            states = leaf_states(transform, state.inner_state, dtype)
            algorithm = in_dtype(transform.algorithm, dtype)
            plain, scaled = (jnp.asarray(x, dtype) for x in velocity_squares(algorithm, states, jnp))
            loss = sharpness = jnp.full((), NAN, dtype)
            if value_fn is not None:
                sharpness = cond(
                    step % sharpness_every == 0,
                    lambda: sharpness_of(loss_fn, params, algorithm, states, iterations, dtype),
                    lambda: jnp.full((), NAN, dtype),
                )
            if value is not None or value_fn is not None:
                loss = jnp.asarray(loss_fn(params) if value is None else value).real.astype(dtype)
            lr = jnp.asarray(transform.current_lr(step), dtype)
            return measured(algorithm, step, lr, (plain, scaled), loss, sharpness, jnp)

        due = (step > 0) & (step % every == 0)
        metrics = cond(due, sample, lambda: state.metrics)
        new_updates, new_state = transform.update(updates, state.inner_state, params, **extra_args)
        return new_updates, MonitorState(new_state, metrics)

    return optax.GradientTransformationExtraArgs(init, update)


def leaf_states(transform: Elementwise, state: Any, dtype: Any) -> list[Any]:
    """Return the algorithm's state of each leaf."""
    columns = [jax.tree.leaves(getattr(state, name)) for name in transform.slots]
    rows = (dict(zip(transform.slots, row, strict=True)) for row in zip(*columns, strict=True))
    return [state_of(transform.algorithm, row, lambda: state.step.astype(dtype)) for row in rows]


def sharpness_of(
    value_fn: Callable[[Any], Any], params: Any, algorithm: Any, states: list[Any], iterations: int, dtype: Any
) -> jax.Array:
    """Return the sharpness of a loss, whose complex parameters are differentiated as two real ones."""
    leaves, treedef = jax.tree.flatten(jax.tree.map(as_leaf, params))
    if not leaves:
        return jnp.zeros((), dtype)

    def loss(parts: list[Any]) -> Any:
        found = value_fn(treedef.unflatten([part[0] if len(part) == 1 else jax.lax.complex(*part) for part in parts]))
        if jnp.shape(found) != ():
            raise ValueError(f"Invalid value_fn: it returned shape {jnp.shape(found)} (expected a scalar)")
        return found

    parts = [(p.real, p.imag) if is_complex(p) else (p,) for p in leaves]
    # 1 / sqrt(D), for each part
    roots = [
        1 / jnp.sqrt(algorithm.denominators(state, jnp)).astype(dtype) if hasattr(algorithm, "denominators") else 1.0
        for part, state in zip(parts, states, strict=True)
        for _ in part
    ]
    flat, structure = jax.tree.flatten(parts)
    _, along = jax.linearize(jax.grad(loss), parts)  # once for all products

    def product(vector: list[Any]) -> list[Any]:
        tangents = [(x * root).astype(p.dtype) for x, root, p in zip(vector, roots, flat, strict=True)]
        images = jax.tree.leaves(along(structure.unflatten(tangents)))
        return [x.astype(dtype) * root for x, root in zip(images, roots, strict=True)]

    def scan(body: Any, carry: Any, count: int, _: Any) -> Any:
        return jax.lax.scan(lambda c, _: body(c), carry, None, count)[1]

    keys = jax.random.split(jax.random.key(0), len(flat))
    start = [jax.random.normal(key, p.shape, dtype) for key, p in zip(keys, flat, strict=True)]
    return largest_eigenvalue(product, start, iterations, jnp, scan)
