"""Summary-Newton as a gradient transformation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from inna_core import newton
from inna_core._validation import checked_number
from inna_core.algorithm import Algorithm
from inna_core.newton import StepSizes, StepSizeState, Summary
from inna_optax._transform import as_leaf, check_gradient, cond, floating, leaves_along, scalar_dtype
from inna_optax.newton.derivatives import partition_of, summary


def while_loop(body: Callable[[Any], Any], state: Any, rounds: int) -> Any:
    """Apply a body until the state's last entry is true: pass it as `inna_core.newton_step_sizes`' `loop` under jit.

    Args:
        body: maps the state to the next one of the same shapes and dtypes.
        state: tuple of arrays, the last one a flag.
        rounds: largest number of repetitions.

    Returns:
        The last state.

    Example:
        >>> import functools, inna_core, jax, jax.numpy as jnp
        >>> solve = jax.jit(functools.partial(inna_core.newton_step_sizes, damping=1.0, loop=while_loop))
        >>> solve(jnp.ones(1), jnp.ones((1, 1)), jnp.zeros(1)).eta.tolist()
        [1.0]
    """

    def unfinished(carry: Any) -> Any:
        return (carry[0] < rounds) & ~carry[1][-1]

    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, body(carry[1])), (0, tuple(state)))[1]


class NewtonSummaryState(NamedTuple):
    """State of `newton_summary`.

    Attributes:
        step: number of updates so far, int32 scalar.
        sizes: `inna_core.StepSizeState`; ``sizes.eta`` are the step sizes before the damping.
        algorithm: state of the algorithm that gives the direction: by field, a pytree like the parameters.
    """

    step: jax.Array
    sizes: StepSizeState
    algorithm: dict[str, Any]


def newton_summary(
    algorithm: Algorithm | None = None,
    *,
    damping: Any = newton.DAMPING,
    rule: StepSizes = StepSizes(),
    groups: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer without a learning rate: one step size per group, from second and third derivatives.

    Its ``update`` takes, beside gradients and parameters, ``value_fn``: the loss as a function of the parameters, on a
    batch of its own. Each step moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of
    `inna_core`. Every `period` steps eta is refreshed, see `inna_core.newton.controller`. With ``INNA()`` or
    ``INNAprop()`` this is INNA (INNAprop) without a learning rate.

    Call ``update`` under ``jax.jit``, as in the example: outside of it every refresh compiles anew and takes seconds.
    ``jax.vmap`` over it needs ``jax.enable_x64``, since a refresh is solved in float64.

    Args:
        algorithm: gives the direction u (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3); a float, a scalar array, or a schedule ``step -> damping``.
        rule: how step sizes follow from the summaries, as in ``StepSizes(period=5)``.
        groups: as in `summary`.

    Returns:
        A `GradientTransformationExtraArgs`; its updates are added by `optax.apply_updates`.

    Raises:
        ValueError: if an argument is out of range; in `update`, if params or value_fn is missing, or a tree
            differs from that of params.
        TypeError: if an argument has a wrong type; in `init`, if a leaf is not real floating point.

    Reference: Wolinski, arXiv 2312.03885; Castera et al., JMLR 22(134), 2021.

    Example:
        >>> import inna_core, jax, jax.numpy as jnp, optax
        >>> loss = lambda p: jnp.sum((p["w"] - 1.0) ** 2)
        >>> optimizer, params = newton_summary(inna_core.INNA()), {"w": jnp.zeros(3)}
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params, value_fn=loss)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(80):
        ...     params, state = step(params, state)
        >>> bool(loss(params) < 1e-2)
        True
    """
    source: Any = newton.checked_algorithm(algorithm)
    newton.checked_rule(rule)
    if not callable(damping):
        damping = checked_number("damping", floating(damping))
    fields: tuple[str, ...] = source.state_type._fields

    def init(params: Any) -> Any:
        params = jax.tree.map(as_leaf, params)
        size, dtype = len(partition_of(params, groups)[1]), scalar_dtype(params)
        zeros = Summary(*(jnp.zeros(shape, dtype) for shape in ((size,), (size, size), (size,))))

        def field(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(source.init(p, jnp), name), params)

        return NewtonSummaryState(jnp.zeros((), jnp.int32), rule.init(zeros), {name: field(name) for name in fields})

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        del extra_args
        for name, value in (("params", params), ("value_fn", value_fn)):
            if value is None:
                raise ValueError(f"Invalid {name}: None (expected an argument of update)")
        if not isinstance(state, NewtonSummaryState):
            raise TypeError(f"Invalid state: {type(state).__name__} (expected NewtonSummaryState, as init returns it)")
        fraction = checked_number("damping", floating(damping(state.step))) if callable(damping) else damping
        params = jax.tree.map(as_leaf, params)
        group_of, _ = partition_of(params, groups)
        paths, treedef = jax.tree.flatten_with_path(params)
        thetas = [p for _, p in paths]
        grads = [as_leaf(g) for g in leaves_along("updates", updates, treedef, "params")]
        for (path, p), g in zip(paths, grads, strict=True):
            check_gradient(path, g, p)
        grads = [g.astype(p.dtype) for g, p in zip(grads, thetas, strict=True)]
        slots = (leaves_along(f"state.{name}", state.algorithm[name], treedef, "params") for name in fields)
        columns = zip(*slots, strict=True)
        states = [source.state_type(*column) for column in columns]
        directions = [newton.direction(source, g, m, p, jnp) for g, m, p in zip(grads, states, thetas, strict=True)]

        def refreshed() -> StepSizeState:
            along = summary(value_fn, params, treedef.unflatten(directions), groups, order=rule.order)
            return _update_in_float64(rule, along, state.sizes)

        due = rule.due(state.step, state.sizes.refreshes)
        sizes = cond(due, refreshed, lambda: state.sizes)
        eta = rule.step_sizes(sizes)

        deltas, new_states = [], []
        for g, m, p, u, s in zip(grads, states, thetas, directions, group_of, strict=True):
            step = newton.trusted_step((fraction * eta[s]).astype(p.dtype), u, p, rule.trust, jnp)
            deltas.append(-step * u)
            new_states.append(newton.next_state(source, g, m, p, jnp.maximum(step, 0), rule.velocity_cap, jnp))
        algorithm_state = {name: treedef.unflatten([getattr(m, name) for m in new_states]) for name in fields}
        return treedef.unflatten(deltas), NewtonSummaryState(
            jnp.asarray(optax.safe_increment(state.step)), sizes, algorithm_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _update_in_float64(rule: StepSizes, along: Summary, sizes: StepSizeState) -> StepSizeState:
    """Return the rule's next state, computed in float64 even where JAX is set to float32."""
    with jax.enable_x64(True):
        wide = Summary(*(x.astype(jnp.float64) for x in along))
        state = StepSizeState(*(x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in sizes))
        new = rule.update(wide, state, while_loop)
        return StepSizeState(*(x.astype(old.dtype) for x, old in zip(new, sizes, strict=True)))
