"""Derivatives of a loss along a direction split into groups, in JAX.

With phi(mu) = L(theta + sum_s mu_s u_s): with up to `MAX_UNROLLED_GROUPS` groups, the entries of phi' are
differentiated one by one in reverse mode, since XLA merges what the passes share. With more, a loop over forward mode
keeps the program from growing with S. The equations are in `inna_core.newton.step_sizes`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from inna_core.newton import Summary, check_order, partition
from inna_optax._transform import as_leaf, scalar_dtype

MAX_UNROLLED_GROUPS = 32
"""Above it the entries are differentiated in a loop; the unrolled program grows with the square of the groups."""


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
            `inna_core.newton.partition` takes.
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
    params = jax.tree.map(as_leaf, params)
    group_of, labels = partition_of(params, groups)
    leaves, treedef = jax.tree.flatten(params)
    if jax.tree.structure(direction) != treedef:
        raise ValueError(f"Invalid direction: {jax.tree.structure(direction)} (expected the parameters' {treedef})")
    moves = jax.tree.leaves(direction)
    for p, u in zip(leaves, moves, strict=True):
        if jnp.shape(u) != p.shape:
            raise ValueError(f"Invalid direction: shape {jnp.shape(u)} (expected the parameter's, {p.shape})")
    size, dtype = len(labels), scalar_dtype(params)

    def phi(mu: Any) -> Any:
        moved = [p + (mu[s] * u.astype(dtype)).astype(p.dtype) for p, u, s in zip(leaves, moves, group_of, strict=True)]
        loss = loss_fn(treedef.unflatten(moved))
        if jnp.shape(loss) != ():
            raise ValueError(f"Invalid loss_fn: it returned shape {jnp.shape(loss)} (expected a scalar)")
        return jnp.asarray(loss, dtype)

    method = _by_unrolled_reverse_mode if size <= MAX_UNROLLED_GROUPS else _by_looped_forward_mode
    return method(phi, size, dtype, order)


def _by_unrolled_reverse_mode(phi: Callable[[Any], Any], size: int, dtype: Any, order: int) -> Summary:
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


def _by_looped_forward_mode(phi: Callable[[Any], Any], size: int, dtype: Any, order: int) -> Summary:
    at, units = jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype)
    g, product = jax.linearize(jax.grad(phi), at)
    H = jax.lax.map(product, units)

    def third(unit: Any) -> Any:
        # forward mode only: it computes once what the three passes share
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
        if not jnp.issubdtype(p.dtype, jnp.floating):
            raise TypeError(f"Invalid params: dtype {p.dtype} (expected a real floating-point dtype)")
    if not paths:
        raise ValueError("Invalid params: no arrays (expected at least one)")
    if groups is not None and not isinstance(groups, str | Sequence) and jax.tree.structure(groups) == treedef:
        groups = [str(label) for label in jax.tree.leaves(groups)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return partition(names, [p.ndim for _, p in paths], "tensor" if groups is None else groups)
