"""One step, in place for NumPy arrays.

An expression such as ``theta + lr * (v - beta * g)`` makes an array of theta's size for each operation, and each goes
through main memory. Here the algorithm's own `update` runs on one block after another, small enough that its
temporaries stay in the cache, and the results are written back into the parameter and its state. The numbers are those
of the plain update, bit for bit, since all operations are elementwise.
"""

import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

from array_api_compat import array_namespace, is_numpy_array

from inna_core._validation import as_array, check_algorithm, check_update, checked_number
from inna_core.algorithm import Array, Scalar
from inna_core.coefficients import given
from inna_core.weight_decay import update_with_decay

BLOCK = 2**16
"""Elements of a block; large enough that the calls for each block take little of the time."""


def update_in_place(
    algorithm: Any,
    grad: Array,
    state: Any,
    theta: Array,
    lr: Scalar,
    weight_decay: Scalar = 0.0,
    *,
    published_decay: bool = False,
) -> tuple[Array, Any]:
    """Make one step, in place where the arrays are writable NumPy arrays, and return the next parameter and state.

    NumPy arrays are overwritten if the parameter and its state are writable and no two of their elements share memory.
    Then the step needs memory for one block. Other arrays stay unchanged, and new ones are returned. Code that uses the
    returned values works in both cases.

    Args:
        algorithm: `inna_core.INNA`, `inna_core.INNAprop` or another elementwise algorithm with a velocity.
        grad: gradient at theta, like theta in shape, dtype and device. It is not changed.
        state: from the algorithm's `init` or the previous step.
        theta: parameter, any shape, real or complex floating point.
        lr: the algorithm's, >= 0; a float or a 0-d array of theta's dtype.
        weight_decay: rate of decoupled decay, >= 0 (`inna_core.weight_decay`); a float or a 0-d array.
        published_decay: whether to decay as the published code of INNAprop does (`update_with_decay`).

    Returns:
        The next parameter, and the next state.

    Raises:
        ValueError, TypeError: as the algorithm's `update`, and a ValueError if NumPy arrays of the gradient, the
            parameter and the state share memory. Nothing has been changed then.

    Example:
        >>> import numpy as np
        >>> from inna_core import INNA
        >>> inna, theta = INNA(), np.ones(3)
        >>> state = inna.init(theta)
        >>> for _ in range(2):
        ...     theta, state = update_in_place(inna, 2 * theta, state, theta, lr=0.1)
        >>> theta
        array([0.9414, 0.9414, 0.9414])
    """
    check_algorithm(algorithm)
    slots = slots_of(algorithm, state)
    if not all(map(can_be_written, (theta, *slots.values()))):
        delta, state = update_with_decay(algorithm, grad, state, theta, lr, weight_decay, published=published_decay)
        return as_array(theta + delta), state
    check_arrays(algorithm, grad, state, theta, lr)

    # axes in the order of memory, so that blocks are contiguous
    axes = sorted(range(theta.ndim), key=lambda axis: -abs(theta.strides[axis]))
    theta_view, grad_view, *views = (x.transpose(axes) for x in (theta, grad, *slots.values()))
    options, after = {"published": published_decay, "xp": (xp := array_namespace(theta))}, state
    if theta.size > BLOCK:
        # Freeing a large array makes glibc's allocator keep temporaries of a block for reuse, rather than unmap them.
        xp.empty(4 * BLOCK, dtype=theta.dtype)
    for block in blocks(theta_view.shape, BLOCK):
        part, parts = theta_view[block], {name: view[block] for name, view in zip(slots, views, strict=True)}
        before = state._replace(**parts)
        delta, after = update_with_decay(algorithm, grad_view[block], before, part, lr, weight_decay, **options)
        part += delta
        for name, old in parts.items():
            old[...] = getattr(after, name)
    return theta, after._replace(**slots)


def slots_of(algorithm: Any, state: Any) -> dict[str, Array]:
    """Return the fields of a state that are like the parameter, by name; {} for a state of another algorithm."""
    if not isinstance(state, algorithm.state_type):
        return {}
    return {name: value for name, value in state._asdict().items() if name != "step"}


def check_arrays(algorithm: Any, grad: Array, state: Any, theta: Array, lr: Scalar) -> None:
    """Refuse arrays that do not fit together, and NumPy arrays that share memory.

    Raises:
        ValueError, TypeError: as `update_in_place`.
    """
    lr = checked_number("lr", lr)
    check_update(None, algorithm.state_type, grad, state, theta, given(algorithm, lr))
    if is_numpy_array(theta):
        slots = {f"state.{name}": value for name, value in slots_of(algorithm, state).items()}
        check_no_shared_memory({"theta": theta, "grad": grad, **slots})


def can_be_written(x: Any) -> bool:
    """Return whether x is a NumPy array that is writable and whose elements have memory of their own."""
    if not is_numpy_array(x) or not x.flags.writeable:
        return False
    if 0 in x.shape:
        return True
    # from the innermost axis outwards, each stride spans all that is within it
    axes = sorted((abs(stride), n) for stride, n in zip(x.strides, x.shape, strict=True) if n > 1)
    return all(outer >= stride * n for (stride, n), (outer, _) in pairwise([(x.itemsize, 1), *axes]))


def check_no_shared_memory(arrays: dict[str, Array]) -> None:
    """Refuse arrays that share memory: one block would read what another has overwritten."""
    for (first, x), (second, y) in combinations(arrays.items(), 2):
        if array_namespace(x, y).shares_memory(x, y):
            raise ValueError(f"Invalid {second}: shares memory with {first} (expected an array of its own)")


def blocks(shape: tuple[int, ...], size: int) -> Iterator[tuple[Any, ...]]:
    """Return indices that cut an array of a shape into blocks of up to `size` elements, in order."""
    if math.prod(shape) <= size:
        yield (...,)
        return
    row = math.prod(shape[1:])
    if row > size:
        yield from ((i, *block) for i in range(shape[0]) for block in blocks(shape[1:], size))
        return
    rows = size // row
    yield from ((slice(i, i + rows), ...) for i in range(0, shape[0], rows))
