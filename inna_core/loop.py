"""A training loop for plain arrays: parameters, a gradient function and batches in, iterates out."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from array_api_compat import array_namespace, is_numpy_array

from inna_core._validation import check_algorithm, checked_count
from inna_core.algorithm import Array, Scalar
from inna_core.in_place import check_arrays, update_in_place
from inna_core.weight_decay import update_with_decay

Tree = Any
"""An array, or dicts, lists and tuples of arrays."""


class Iterate(NamedTuple):
    """Parameters and states after a step.

    Attributes:
        theta: the parameters, in the structure in which they were given.
        state: the algorithm's state of each parameter, in the same structure.
        step: number of steps made.
    """

    theta: Tree
    state: Tree
    step: int


def iterate(
    algorithm: Any,
    theta: Tree,
    gradient: Callable[[Tree, Any], Tree],
    batches: Iterable[Any],
    lr: Scalar | Callable[[int], Scalar],
    *,
    weight_decay: Scalar = 0.0,
    published_decay: bool = False,
    state: Tree | None = None,
    step: int = 0,
) -> Iterator[Iterate]:
    """Make one step for each batch, and yield the iterate after it.

    The given parameters and states stay unchanged. NumPy arrays are copied once and then overwritten by each step
    (`inna_core.update_in_place`), so copy what you want to keep of an iterate.

    Args:
        algorithm: `inna_core.INNA` or `inna_core.INNAprop`.
        theta: parameters: an array of any library of the array API standard, or dicts, lists and tuples of arrays.
        gradient: function of the parameters and a batch that returns the gradient, in the parameters' structure.
        batches: what `gradient` takes, one object a step.
        lr: learning rate, or a function of the number of the step, counted from 0, such as
            `inna_core.schedules.PowerDecay`.
        weight_decay: rate of decoupled decay, >= 0 (`inna_core.weight_decay`).
        published_decay: whether to decay as the published code of INNAprop does (see the same module).
        state: `Iterate.state` of an earlier run, to continue it; by default new states.
        step: `Iterate.step` of that run, from which the schedule continues.

    Returns:
        An iterator of `Iterate`.

    Raises:
        ValueError, TypeError: as the algorithm's `update`, or if a gradient has another structure than the parameters.
            The last iterate is then unchanged.

    Example:
        >>> import numpy as np
        >>> from inna_core import INNA
        >>> x = np.random.default_rng(0).standard_normal((64, 3))
        >>> y = x @ np.asarray([1.0, -2.0, 3.0])
        >>> def gradient(theta, rows):  # of the mean squared error / 2
        ...     return x[rows].T @ (x[rows] @ theta - y[rows]) / len(rows)
        >>> batches = (rows for epoch in range(50) for rows in np.split(np.arange(64), 4))
        >>> for theta, state, step in iterate(INNA(momentum=0.9), np.zeros(3), gradient, batches, lr=0.1):
        ...     pass
        >>> step, theta.round(3)
        (200, array([ 1., -2.,  3.]))
    """
    check_algorithm(algorithm)
    if not callable(gradient):
        raise TypeError(f"Invalid gradient: {gradient!r:.80} (expected a function of the parameters and a batch)")
    if not isinstance(batches, Iterable):
        raise TypeError(f"Invalid batches: {batches!r:.80} (expected an iterable with one object for each step)")
    checked_count("step", step, 0)
    params = [owned(x) for x in flattened(theta, theta, "theta")]
    states = [algorithm.init(x) for x in params]
    if state is not None:
        states = [owned_state(algorithm, given) for given in flattened(state, theta, "state")]
    lr_of = lr if callable(lr) else lambda _: lr
    decay = {"weight_decay": weight_decay, "published_decay": published_decay}

    def run() -> Iterator[Iterate]:
        for k, batch in enumerate(batches, start=step):
            grads = flattened(gradient(rebuilt(theta, iter(params)), batch), theta, "gradient")
            now = lr_of(k)
            for g, s, x in zip(grads, states, params, strict=True):
                check(algorithm, g, s, x, now, **decay)  # all before the first is changed
            for i, g in enumerate(grads):
                params[i], states[i] = update_in_place(algorithm, g, states[i], params[i], now, **decay)
            yield Iterate(rebuilt(theta, iter(params)), rebuilt(theta, iter(states)), k + 1)

    return run()


def check(
    algorithm: Any, grad: Array, state: Any, theta: Array, lr: Scalar, weight_decay: Scalar, published_decay: bool
) -> None:
    """Refuse what `update_in_place` would refuse."""
    check_arrays(algorithm, grad, state, theta, lr)
    if theta.shape:  # a step of zero elements runs the algorithm's own checks
        state = state._replace(**{name: x[:0, ...] for name, x in state._asdict().items() if name != "step"})
        grad, theta = grad[:0, ...], theta[:0, ...]
    update_with_decay(algorithm, grad, state, theta, lr, weight_decay, published=published_decay)


def owned(x: Array) -> Array:
    """Return an array that may be overwritten: a copy of NumPy's, and any other as it is."""
    return array_namespace(x).asarray(x, copy=True) if is_numpy_array(x) else x


def owned_state(algorithm: Any, state: Any) -> Any:
    if not isinstance(state, algorithm.state_type):
        expected = algorithm.state_type.__name__
        raise TypeError(f"Invalid state: {type(state).__name__} (expected {expected}, in the structure of theta)")
    return type(state)(*map(owned, state))


def flattened(tree: Tree, like: Tree, name: str) -> list[Any]:
    """Return the leaves of a tree in the order of `like`; raise ValueError if the structures differ."""
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            raise ValueError(f"Invalid {name}: {outline(tree)} (expected {outline(like)})")
        return [leaf for key in like for leaf in flattened(tree[key], like[key], f"{name}[{key!r}]")]
    if isinstance(like, list | tuple):
        if not isinstance(tree, list | tuple) or len(tree) != len(like):
            raise ValueError(f"Invalid {name}: {outline(tree)} (expected {outline(like)})")
        pairs = enumerate(zip(tree, like, strict=True))
        return [leaf for i, (part, place) in pairs for leaf in flattened(part, place, f"{name}[{i}]")]
    return [tree]


def outline(tree: Tree) -> str:
    if isinstance(tree, dict):
        return f"a dict with keys {list(tree)}"
    return f"{len(tree)} arrays" if isinstance(tree, list | tuple) else type(tree).__name__


def rebuilt(like: Tree, leaves: Iterator[Any]) -> Tree:
    """Return leaves, in order, in the structure of a tree."""
    if isinstance(like, dict):
        return {key: rebuilt(part, leaves) for key, part in like.items()}
    if isinstance(like, list | tuple):
        parts = [rebuilt(part, leaves) for part in like]
        return parts if isinstance(like, list) else tuple(parts)
    return next(leaves)
