"""Summary-Newton for JAX: the derivatives of a loss along a direction split into groups, and the transformation.

With phi(mu) = L(theta + sum_s mu_s u_s): up to `UNROLLED` groups are differentiated by reverse mode, entry by entry of
phi', since XLA merges the passes that they share; more groups by a loop over forward mode, so that the program does not
grow with S. The equations are in `inna_core.newton_summary`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from inna_core._validation import checked_number
from inna_core.algorithm import Algorithm
from inna_core.newton_loop import (
    DAMPING,
    StepSizes,
    StepSizeSettings,
    StepSizeState,
    checked_algorithm,
    direction,
    next_state,
    with_settings,
)
from inna_core.newton_summary import Summary, check_order, partition

UNROLLED = 32
"""Largest number of groups that are differentiated entry by entry: a program that grows with their square."""


def summary(
    loss_fn: Callable[[Any], Any], params: Any, direction: Any, groups: Any = None, *, order: int = 3
) -> Summary:
    """Return the exact derivatives of a loss along a direction, group by group: g, H and T.

    The loss sees the parameters theta_s + mu_s u_s, u being the direction, and is differentiated at mu = 0. Works
    under ``jax.jit``.

    Args:
        loss_fn: maps parameters to the loss, a scalar.
        params: pytree of real floating-point arrays.
        direction: u, a pytree like params. A step in this direction is theta - eta u, so a gradient is a direction.
        groups: None (each array is a group), a pytree like params with labels as leaves, or what
            `inna_core.newton_summary.partition` takes.
        order: 3, or 2 to leave the third derivatives out (T = 0).

    Returns:
        `Summary` of the gradient (S,), Hessian (S, S) and third derivatives (S,), in the widest dtype of the
        parameters, float32 at least.

    Raises:
        ValueError: if the trees or shapes differ, the loss is not a scalar, or order is not 2 or 3.
        TypeError: if a leaf is not real floating point.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from inna_core import newton_step_sizes
        >>> loss = lambda p: jnp.sum((p["w"] - 1.0) ** 2) + p["b"] ** 2
        >>> params = {"w": jnp.zeros(3), "b": jnp.asarray(2.0)}
        >>> along = summary(loss, params, jax.grad(loss)(params))
        >>> newton_step_sizes(*map(np.asarray, along), damping=1.0).eta.tolist()
        [0.5, 0.5]
    """
    check_order(order)
    group_of, labels = partition_of(params, groups)
    leaves, treedef = jax.tree.flatten(params)
    if jax.tree.structure(direction) != treedef:
        raise ValueError(f"Invalid direction: {jax.tree.structure(direction)} (expected the parameters' {treedef})")
    moves = jax.tree.leaves(direction)
    for p, u in zip(leaves, moves, strict=True):
        if jnp.shape(u) != p.shape:
            raise ValueError(f"Invalid direction: shape {jnp.shape(u)} (expected the parameter's, {p.shape})")
    size = len(labels)
    dtype = jnp.result_type(*(p.dtype for p in leaves))
    dtype = jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype

    def phi(mu: Any) -> Any:
        moved = [p + (mu[s] * u.astype(dtype)).astype(p.dtype) for p, u, s in zip(leaves, moves, group_of, strict=True)]
        loss = loss_fn(treedef.unflatten(moved))
        if jnp.shape(loss) != ():
            raise ValueError(f"Invalid loss_fn: it returned shape {jnp.shape(loss)} (expected a scalar)")
        return jnp.asarray(loss, dtype)

    method = _entry_by_entry if size <= UNROLLED else _in_a_loop
    return method(phi, size, dtype, order)


def _entry_by_entry(phi: Callable[[Any], Any], size: int, dtype: Any, order: int) -> Summary:
    at = [jnp.zeros((), dtype) for _ in range(size)]
    g = jax.grad(phi)(at)
    rows, third = [], []
    for s in range(size):

        def entry(tail: list[Any], s: int = s) -> Any:
            return jax.grad(lambda own: phi([*at[:s], own, *tail[1:]]))(tail[0])

        row = jax.grad(entry)(at[s:])
        rows.append([jnp.zeros((), dtype)] * s + row)
        if order == 3:
            along = lambda own, s=s: phi([*at[:s], own, *at[s + 1 :]])  # noqa: E731
            third.append(jax.grad(jax.grad(jax.grad(along)))(at[s]))
    upper = jnp.stack([jnp.stack(row) for row in rows])
    T = jnp.stack(third) if order == 3 else jnp.zeros(size, dtype)
    return Summary(jnp.stack(g), upper + jnp.triu(upper, 1).T, T)


def _in_a_loop(phi: Callable[[Any], Any], size: int, dtype: Any, order: int) -> Summary:
    at, units = jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype)
    g, product = jax.linearize(jax.grad(phi), at)
    H = jax.lax.map(product, units)

    def third(unit: Any) -> Any:
        # forward mode alone: what the three passes have in common is computed once
        along: Callable[[Any], Any] = lambda m: phi(m * unit)  # noqa: E731
        for _ in range(3):
            along = _derivative(along)
        return along(jnp.zeros((), dtype))

    T = jax.lax.map(third, units) if order == 3 else jnp.zeros(size, dtype)
    return Summary(g, (H + H.T) / 2, T)


def _derivative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda m: jax.jvp(function, (m,), (jnp.ones_like(m),))[1]


def partition_of(params: Any, groups: Any) -> tuple[list[int], list[str]]:
    """Return the group of each leaf, and the groups' labels."""
    paths, treedef = jax.tree.flatten_with_path(params)
    for _, p in paths:
        if not jnp.issubdtype(jnp.asarray(p).dtype, jnp.floating):
            raise TypeError(f"Invalid params: dtype {jnp.asarray(p).dtype} (expected a real floating-point dtype)")
    if not paths:
        raise ValueError("Invalid params: no arrays (expected at least one)")
    if groups is not None and not isinstance(groups, str | Sequence) and jax.tree.structure(groups) == treedef:
        groups = [str(label) for label in jax.tree.leaves(groups)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return partition(names, [jnp.ndim(p) for _, p in paths], "tensor" if groups is None else groups)


def while_loop(body: Callable[[Any], Any], state: Any, rounds: int) -> Any:
    """Repeat a body until the state's last entry is true: the `loop` of `inna_core.newton_step_sizes` under jit.

    Args:
        body: maps the state to the next, shapes and dtypes kept.
        state: tuple of arrays, the last one a flag.
        rounds: most repetitions.

    Example:
        >>> import functools, inna_core, jax, jax.numpy as jnp
        >>> solve = jax.jit(functools.partial(inna_core.newton_step_sizes, damping=1.0, loop=while_loop))
        >>> solve(jnp.ones(1), jnp.ones((1, 1)), jnp.zeros(1)).eta.tolist()
        [1.0]
    """

    def going(carry: Any) -> Any:
        return (carry[0] < rounds) & ~carry[1][-1]

    return jax.lax.while_loop(going, lambda carry: (carry[0] + 1, body(carry[1])), (0, tuple(state)))[1]


class NewtonSummaryState(NamedTuple):
    """State of `newton_summary`.

    Attributes:
        step: number of updates made, int32 scalar.
        sizes: `inna_core.StepSizeState`; ``sizes.eta`` are the step sizes before the damping.
        algorithm: state of the algorithm that makes the direction: by field, one pytree like the parameters.
    """

    step: jax.Array
    sizes: StepSizeState
    algorithm: dict[str, Any]


@with_settings
def newton_summary(
    algorithm: Algorithm | None = None,
    *,
    damping: Any = DAMPING,
    groups: Any = None,
    **settings: Unpack[StepSizeSettings],
) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer without a learning rate: one step size per group from second and third derivatives.

    Its ``update`` takes, beside gradients and parameters, ``value_fn``: the loss as a function of the parameters, on a
    batch of its own. Each step moves theta_s by -damping eta_s u_s, where u is the direction of an algorithm of
    `inna_core`; every `period` steps eta is refreshed, see `inna_core.newton_loop`. With ``INNA()`` or ``INNAprop()``
    this is INNA (INNAprop) without a learning rate.

    Args:
        algorithm: makes the direction (default `inna_core.Momentum`, as in the paper).
        damping: lambda_1 >= 0 (default 0.3); a float, a scalar array, or a schedule ``step -> damping``.
        groups: as in `summary`.
        **settings: keywords of `inna_core.StepSizes`: ``damping_int``, ``period``, ``order``, ``average`` and others.

    Returns:
        A `GradientTransformationExtraArgs`; its updates are added by `optax.apply_updates`.

    Raises:
        ValueError: if an argument is out of range; in `update`, if params or value_fn is missing.
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
    maker: Any = checked_algorithm(algorithm)
    rule = StepSizes(**settings)
    if not callable(damping):
        damping = checked_number("damping", damping)
    slots: tuple[str, ...] = maker.state_type._fields

    def init(params: Any) -> Any:
        size = len(partition_of(params, groups)[1])
        dtype = jnp.result_type(*(p.dtype for p in jax.tree.leaves(params)))
        dtype = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
        zeros = Summary(*(jnp.zeros(shape, dtype) for shape in ((size,), (size, size), (size,))))

        def slot(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(maker.init(p, jnp), name), params)

        return NewtonSummaryState(jnp.zeros((), jnp.int32), rule.init(zeros), {name: slot(name) for name in slots})

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        del extra_args
        for name, value in (("params", params), ("value_fn", value_fn)):
            if value is None:
                raise ValueError(f"Invalid {name}: None (expected an argument of update)")
        group_of, _ = partition_of(params, groups)
        thetas, treedef = jax.tree.flatten(params)
        grads = treedef.flatten_up_to(updates)
        columns = zip(*(treedef.flatten_up_to(state.algorithm[name]) for name in slots), strict=True)
        states = [maker.state_type(*column) for column in columns]
        moves = [direction(maker, g, m, p, jnp) for g, m, p in zip(grads, states, thetas, strict=True)]

        def refreshed(sizes: StepSizeState) -> StepSizeState:
            found = summary(value_fn, params, treedef.unflatten(moves), groups, order=rule.order)
            return _in_double(rule, found, sizes)

        due = rule.due(state.step, state.sizes.refreshes)
        sizes = jax.lax.cond(due, refreshed, lambda sizes: sizes, state.sizes)
        eta = rule.step_sizes(sizes)
        fraction = damping(state.step) if callable(damping) else damping

        deltas, new = [], []
        for g, m, p, u, s in zip(grads, states, thetas, moves, group_of, strict=True):
            step = (fraction * eta[s]).astype(p.dtype)
            deltas.append(-step * u)
            new.append(next_state(maker, g, m, p, jnp.maximum(step, 0), rule.velocity_cap, jnp))
        stepped = {name: treedef.unflatten([getattr(m, name) for m in new]) for name in slots}
        return treedef.unflatten(deltas), NewtonSummaryState(
            jnp.asarray(optax.safe_increment(state.step)), sizes, stepped
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _in_double(rule: StepSizes, found: Summary, sizes: StepSizeState) -> StepSizeState:
    """Return the rule's next state, computed in float64 even where JAX is set to float32."""
    with jax.enable_x64(True):
        wide = Summary(*(x.astype(jnp.float64) for x in found))
        own = StepSizeState(*(x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in sizes))
        new = rule.update(wide, own, while_loop)
        return StepSizeState(*(x.astype(old.dtype) for x, old in zip(new, sizes, strict=True)))
