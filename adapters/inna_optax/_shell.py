"""The one optax shell: it turns an algorithm of `inna_core` into a gradient transformation."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inna_core._checks import checked_number, is_narrow
from inna_core.algorithm import Algorithm
from inna_core.compensation import compensated_increment
from inna_core.decay import update_with_decay
from inna_optax._order import on_one_cpu, one_behind_the_other


def elementwise(
    algorithm: Algorithm,
    state_type: Callable[..., Any],
    learning_rate: Any,
    weight_decay: Any,
    mask: Any,
    *,
    published_decay: bool = False,
    kahan_sum: bool | None,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that runs an algorithm on every leaf of a pytree.

    The step size is part of the dynamics, so schedules are evaluated here and the updates come out finished: negative
    sign and learning rate included.

    Args:
        algorithm: of `inna_core`; its hyperparameters may be traced.
        state_type: NamedTuple of ``step``, the other fields of the algorithm's state, and ``compensation``.
        learning_rate: number, 0-d array or schedule ``step -> lr``.
        weight_decay: decoupled decay, number or 0-d array.
        mask: pytree of booleans (or a prefix of it, or a callable of the parameters) with False where nothing decays.
        published_decay: let the decay act on the velocity too.
        kahan_sum: compensate the rounding of updates; None for float16 and bfloat16 leaves only.
    """
    if not callable(learning_rate):
        learning_rate = checked_number("learning_rate", learning_rate)
    weight_decay = checked_number("weight_decay", weight_decay)
    for name, value, allowed in (
        ("published_decay", published_decay, (True, False)),
        ("kahan_sum", kahan_sum, (True, False, None)),
    ):
        if not any(value is one for one in allowed):
            raise TypeError(f"Invalid {name}: {value!r} (expected one of {', '.join(map(str, allowed))})")
    decays = not isinstance(weight_decay, float) or weight_decay != 0.0
    slots = [name for name in algorithm.state_type._fields if name != "step"]  # type: ignore[attr-defined]

    def init(params: Any) -> Any:
        # `jax.tree.map` alone touches the parameters: optax maps over states by initialising from placeholders.
        def initial(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(algorithm.init(wide(p), xp=jnp), name), params)

        def owed(p: jax.Array) -> jax.Array | None:
            return jnp.zeros_like(p) if (is_narrow(p) if kahan_sum is None else kahan_sum) else None

        return state_type(
            step=jnp.zeros((), jnp.int32),
            **{name: initial(name) for name in slots},
            compensation=jax.tree.map(owed, params),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del extra_args
        lr = learning_rate(state.step) if callable(learning_rate) else learning_rate
        grads, treedef = jax.tree.flatten(updates)
        owed = treedef.flatten_up_to(state.compensation)
        if params is None and (decays or any(c is not None for c in owed)):
            raise ValueError(
                "Invalid params: None (expected the current parameters, for weight decay or a compensated sum: call "
                "update(updates, state, params))"
            )
        # without decay and compensation the parameters' shapes and dtypes are all that matters
        thetas = treedef.flatten_up_to(params if params is not None else updates)
        states = zip(*(treedef.flatten_up_to(getattr(state, name)) for name in slots), strict=True)
        decayed = [decays] * len(grads)
        if decays and mask is not None:
            decayed = treedef.flatten_up_to(jax.tree.broadcast(mask(params) if callable(mask) else mask, params))

        results = [
            update_leaf(
                g, dict(zip(slots, leaf_state, strict=True)), c, theta, state.step, lr, decay, params is not None
            )
            for g, leaf_state, c, theta, decay in zip(grads, states, owed, thetas, decayed, strict=True)
        ]
        new = {name: treedef.unflatten([own[name] for _, own, _ in results]) for name in slots}
        compensation = treedef.unflatten([c for _, _, c in results])
        step = optax.safe_increment(state.step)
        return treedef.unflatten([u for u, _, _ in results]), state_type(step, **new, compensation=compensation)

    def update_leaf(g: Any, own: Any, c: Any, theta: Any, step: Any, lr: Any, decay: Any, has_params: bool) -> Any:
        stored, theta = theta, wide(theta)
        dtype = theta.dtype
        # a mask is made of plain booleans as a rule; a traced one is respected too
        rate = weight_decay if decay is True else 0.0 if decay is False else jnp.where(decay, weight_decay, 0.0)
        if "step" in algorithm.state_type._fields:  # type: ignore[attr-defined]
            own = {**own, "step": step.astype(dtype)}
        typed: Any = algorithm
        typed = replace(typed, **{f.name: in_dtype(getattr(typed, f.name), dtype) for f in fields(typed)})
        whole = theta if c is None else theta + wide(c)

        def run(g: Any, own: Any, lr: Any) -> Any:
            return update_with_decay(
                typed,
                g,
                own,
                whole,
                lr,
                in_dtype(rate, dtype),
                published=published_decay,
                xp=jnp,
            )

        own, lr = algorithm.state_type(**own), in_dtype(lr, dtype)
        # published decay and compensation read the old parameter: nothing is gained behind the new one
        if not has_params or published_decay or c is not None or not on_one_cpu():
            delta, next_own = run(wide(g), own, lr)
        else:
            delta, next_own = one_behind_the_other(run, wide(g), own, theta, lr)
        if c is not None:
            delta, c = compensated_increment(delta, wide(c), theta, lambda x: rounded(x, stored.dtype))
            c = c.astype(stored.dtype)
        return delta.astype(stored.dtype), next_own._asdict(), c

    return optax.GradientTransformationExtraArgs(init, update)


def wide(x: jax.Array) -> jax.Array:
    """Return a leaf in the dtype it is computed in: float32 for narrower floats, unchanged otherwise."""
    return x.astype(jnp.float32) if is_narrow(x) else x


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """Round to a dtype without leaving x's: XLA may drop a cast there and back, but not this."""
    if x.dtype == dtype:
        return x
    info = jnp.finfo(dtype)
    y = jax.lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if dtype == jnp.float16:
        # reduce_precision flushes float16's subnormal numbers, whose spacing is 2^-24. Adding a constant with that
        # spacing and taking it away again would round too, but XLA drops that as well.
        multiple = jnp.round(x * 2.0**24) * 2.0**-24
        # exactly the multiple, with the derivative of x, as `reduce_precision` has
        y = jnp.where(jnp.abs(x) < float(info.tiny), x + jax.lax.stop_gradient(multiple - x), y)
    return y


def in_dtype(value: Any, dtype: Any) -> Any:
    return value if isinstance(value, float) else jnp.asarray(value, dtype)
