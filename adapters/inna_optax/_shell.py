"""The one optax shell: it turns an algorithm of `inna_core` into a gradient transformation."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inna_core._checks import checked_number
from inna_core.algorithm import Algorithm


def elementwise(
    algorithm: Algorithm,
    state_type: Callable[..., Any],
    learning_rate: Any,
    weight_decay: Any,
    mask: Any,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that runs an algorithm on every leaf of a pytree.

    The step size is part of the dynamics, so schedules are evaluated here and the updates come out finished: negative
    sign and learning rate included.

    Args:
        algorithm: of `inna_core`; its hyperparameters may be traced.
        state_type: NamedTuple of ``step`` and the fields of the algorithm's state.
        learning_rate: number, 0-d array or schedule ``step -> lr``.
        weight_decay: decoupled decay, number or 0-d array.
        mask: pytree of booleans (or a prefix of it, or a callable of the parameters) with False where nothing decays.
    """
    if not callable(learning_rate):
        learning_rate = checked_number("learning_rate", learning_rate)
    weight_decay = checked_number("weight_decay", weight_decay)
    decays = not isinstance(weight_decay, float) or weight_decay != 0.0
    slots = [name for name in algorithm.state_type._fields if name != "step"]  # type: ignore[attr-defined]

    def init(params: Any) -> Any:
        # `jax.tree.map` alone touches the parameters: optax maps over states by initialising from placeholders.
        def initial(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(algorithm.init(_wide(p), xp=jnp), name), params)

        return state_type(step=jnp.zeros((), jnp.int32), **{name: initial(name) for name in slots})

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del extra_args
        if params is None and decays:
            raise ValueError(
                f"Invalid params: None (expected the current parameters, since weight_decay is {weight_decay!r})"
            )
        lr = learning_rate(state.step) if callable(learning_rate) else learning_rate
        grads, treedef = jax.tree.flatten(updates)
        thetas = grads if params is None else treedef.flatten_up_to(params)
        states = zip(*(treedef.flatten_up_to(getattr(state, name)) for name in slots), strict=True)
        decayed = [decays] * len(grads)
        if decays and mask is not None:
            chosen = jax.tree.broadcast(mask(params) if callable(mask) else mask, params)
            decayed = treedef.flatten_up_to(chosen)

        deltas, new = [], []
        for g, theta, leaf_state, decay in zip(grads, thetas, states, decayed, strict=True):
            dtype = _wide(theta).dtype
            own = algorithm.state_type(**dict(zip(slots, leaf_state, strict=True)))
            delta, own = _cast(algorithm, dtype).update(_wide(g), own, _wide(theta), _in_dtype(lr, dtype), xp=jnp)
            if decays:
                factor = _in_dtype(lr, dtype) * _in_dtype(weight_decay, dtype)
                delta = jnp.where(decay, delta - factor * _wide(theta), delta)
            deltas.append(delta.astype(theta.dtype))
            new.append(own)
        next_slots = {name: treedef.unflatten([getattr(own, name) for own in new]) for name in slots}
        return treedef.unflatten(deltas), state_type(step=optax.safe_increment(state.step), **next_slots)

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(x: jax.Array) -> jax.Array:
    """Return a leaf in the dtype it is computed in: float32 for narrower floats, unchanged otherwise."""
    return x.astype(jnp.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x


def _in_dtype(value: Any, dtype: Any) -> Any:
    return value if isinstance(value, float) else jnp.asarray(value, dtype)


def _cast(algorithm: Any, dtype: Any) -> Any:
    return replace(algorithm, **{f.name: _in_dtype(getattr(algorithm, f.name), dtype) for f in fields(algorithm)})
