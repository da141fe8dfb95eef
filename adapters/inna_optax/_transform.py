"""The one optax shell: it turns an algorithm of `inna_core` into a gradient transformation."""

from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr

from inna_core._validation import checked_choice, checked_number, is_narrow, is_real_floating
from inna_core.algorithm import Algorithm
from inna_core.compensation import compensated_increment
from inna_core.weight_decay import update_with_decay
from inna_optax._order import on_one_cpu, one_behind_the_other


def elementwise(
    algorithm: Algorithm,
    state_type: type[Any],
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
    schedules = callable(learning_rate)
    if not schedules:
        learning_rate = checked_number("learning_rate", floating(learning_rate))
    weight_decay = checked_number("weight_decay", floating(weight_decay))
    checked_choice("published_decay", published_decay, (True, False))
    checked_choice("kahan_sum", kahan_sum, (True, False, None))
    decays = not isinstance(weight_decay, float) or weight_decay != 0.0
    slots = [name for name in algorithm.state_type._fields if name != "step"]  # type: ignore[attr-defined]

    def owes(p: jax.Array) -> bool:
        return is_narrow(p) if kahan_sum is None else kahan_sum

    def init(params: Any) -> Any:
        for path, p in jax.tree.leaves_with_path(jax.tree.map(as_leaf, params)):
            check_real_floating("params", path, p)

        # `jax.tree.map` alone touches the parameters: optax maps over states by initialising from placeholders.
        def initial(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(algorithm.init(wide(as_leaf(p)), xp=jnp), name), params)

        # A tree of nothing but None would not do: `optax.tree.map_params` could not lay another tree along it.
        owing = kahan_sum or any(owes(as_leaf(p)) for p in jax.tree.leaves(params))
        return state_type(
            step=jnp.zeros((), jnp.int32),
            **{name: initial(name) for name in slots},
            compensation=jax.tree.map(lambda p: jnp.zeros_like(as_leaf(p)) if owes(as_leaf(p)) else None, params)
            if owing
            else None,
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del extra_args
        if not isinstance(state, state_type):
            raise TypeError(
                f"Invalid state: {type(state).__name__} (expected {state_type.__name__}, as init returns it)"
            )
        if params is None and (decays or state.compensation is not None):
            raise ValueError(
                "Invalid params: None (expected the current parameters, for weight decay or a compensated sum: call "
                "update(updates, state, params))"
            )
        lr = checked_number("learning_rate", floating(learning_rate(state.step))) if schedules else learning_rate
        paths, treedef = jax.tree.flatten_with_path(updates)
        grads = [as_leaf(g) for _, g in paths]
        columns = [leaves_along(f"state.{name}", getattr(state, name), treedef) for name in slots]
        owed = [None] * len(grads)
        if state.compensation is not None:
            owed = leaves_along("state.compensation", state.compensation, treedef)
        if params is not None:
            thetas = [as_leaf(p) for p in leaves_along("params", params, treedef)]
        else:
            # Shapes and dtypes are all that matters then, and leaves whose sum is not compensated are as wide as their
            # state, unless they were asked to be.
            thetas = [g if kahan_sum is False and is_narrow(g) else v for g, v in zip(grads, columns[0], strict=True)]
        for (path, _), g, theta in zip(paths, grads, thetas, strict=True):
            check_gradient(path, g, theta)
        decayed = [decays] * len(grads)
        if decays and mask is not None:
            marks = jax.tree.broadcast(mask(params) if callable(mask) else mask, params)
            decayed = [
                checked_mark(path, mark)
                for (path, _), mark in zip(paths, leaves_along("mask", marks, treedef), strict=True)
            ]

        results = [
            update_leaf(g, dict(zip(slots, own, strict=True)), c, theta, state.step, lr, decay, params is not None)
            for g, own, c, theta, decay in zip(grads, zip(*columns, strict=True), owed, thetas, decayed, strict=True)
        ]
        new = {name: treedef.unflatten([own[name] for _, own, _ in results]) for name in slots}
        compensation = None if state.compensation is None else treedef.unflatten([c for _, _, c in results])
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

        g, own, lr = g.astype(dtype), algorithm.state_type(**own), in_dtype(lr, dtype)
        # published decay and compensation read the old parameter: nothing is gained behind the new one
        if not has_params or published_decay or c is not None or not on_one_cpu():
            delta, next_own = run(g, own, lr)
        else:
            delta, next_own = one_behind_the_other(run, g, own, theta, lr)
        if c is not None:
            delta, c = compensated_increment(delta, wide(c), theta, lambda x: rounded(x, stored.dtype))
            c = c.astype(stored.dtype)
        return delta.astype(stored.dtype), next_own._asdict(), c

    return optax.GradientTransformationExtraArgs(init, update)


def leaves_along(name: str, tree: Any, treedef: Any) -> list[Any]:
    """Return what a tree has at the places of another tree's leaves."""
    try:
        return treedef.flatten_up_to(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Invalid {name}: a tree {jax.tree.structure(tree)} (expected the structure of updates, {treedef})"
        ) from error


def check_real_floating(name: str, path: Any, x: Any) -> None:
    if not is_real_floating(x):
        raise TypeError(f"Invalid {name}{keystr(path)}: dtype {x.dtype} (expected a real floating-point dtype)")


def check_gradient(path: Any, g: Any, theta: Any) -> None:
    if not is_real_floating(g):
        raise TypeError(
            f"Invalid updates{keystr(path)}: a gradient of dtype {g.dtype} (expected a real floating-point dtype)"
        )
    if g.shape != theta.shape:
        raise ValueError(
            f"Invalid updates{keystr(path)}: a gradient of shape {g.shape} (expected the parameter's, {theta.shape})"
        )


def checked_mark(path: Any, mark: Any) -> Any:
    """Return one leaf of a mask: a plain boolean, or a 0-d boolean array that may be traced."""
    if isinstance(mark, int):
        return bool(mark)
    if str(getattr(mark, "dtype", "")) == "bool" and mark.shape == ():
        return mark
    raise TypeError(f"Invalid mask{keystr(path)}: {mark!r} (expected True, False or a 0-d boolean array)")


def as_leaf(x: Any) -> jax.Array:
    """Return a leaf as JAX computes with it: of NumPy arrays, Python numbers and abstract arrays too."""
    return jnp.zeros_like(x) if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x, jnp.result_type(x))


def floating(value: Any) -> Any:
    """Return integer arrays as floating-point ones: `optax.inject_hyperparams` makes them of Python's integers."""
    integral = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.integer)
    return value.astype(float) if integral else value


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
