"""`update_in_place`: the plain update's numbers, bit for bit, in the arrays that were given, or nothing at all."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inna_core import INNA, INNAprop, update_in_place
from inna_core.in_place import BLOCK, can_be_written
from inna_core.weight_decay import update_with_decay

pytestmark = pytest.mark.fast

ALGORITHMS: dict[str, Any] = {"INNA": INNA(), "INNA, momentum": INNA(momentum=0.9), "INNAprop": INNAprop()}
SMALL = 64
"""Elements of a block in the test of all layouts."""

Layout = Callable[[np.ndarray], np.ndarray]

LAYOUTS: dict[str, tuple[tuple[int, ...], Layout]] = {
    "0-d": ((), lambda x: x),
    "empty": ((0, 5), lambda x: x),
    "short": ((7,), lambda x: x),
    "blocks": ((2 * SMALL + 17,), lambda x: x),
    "long rows": ((3, SMALL + 5), lambda x: x),
    "short rows": ((SMALL, 3), lambda x: x),
    "column-major": ((30, 40), np.asfortranarray),
    "permuted": ((2, 30, 20), lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)),
    "every other": ((SMALL + 9, 2), lambda x: np.repeat(x, 2, axis=0)[::2]),
    "reversed": ((SMALL + 9,), lambda x: x[::-1].copy()[::-1]),
}
"""By name: shape, and how to put the elements of an array into a memory layout."""


def arrays(shape: tuple[int, ...], dtype: str, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((2, *shape)) for _ in range(n)]
    return [(x[0] + 1j * x[1] if dtype.startswith("complex") else x[0]).astype(dtype)[...] for x in parts]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "complex128"])
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_are_those_of_the_plain_update(
    layout: str, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inna_core.in_place.BLOCK", SMALL)
    algorithm, (shape, laid_out) = ALGORITHMS[name], LAYOUTS[layout]
    start, *grads = (np.asarray(x) for x in arrays(shape, dtype, 4))
    want, want_state = start, algorithm.init(start)
    theta, state = laid_out(start.copy()), algorithm.init(start)
    fields = [name for name in state._fields if name != "step"]
    state = state._replace(**{name: laid_out(getattr(state, name).copy()) for name in fields})
    owned = [theta, *(getattr(state, name) for name in fields)]
    for grad in grads:
        delta, want_state = update_with_decay(algorithm, grad, want_state, want, 0.1, 0.01)
        want = want + delta
        theta, state = update_in_place(algorithm, laid_out(grad.copy()), state, theta, 0.1, 0.01)
    assert all(a is b for a, b in zip([theta, *(getattr(state, name) for name in fields)], owned, strict=True))
    assert theta.dtype == dtype
    np.testing.assert_array_equal(theta, want)
    for name in state._fields:
        np.testing.assert_array_equal(getattr(state, name), getattr(want_state, name))


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


UNWRITABLE: dict[str, Callable[[], np.ndarray]] = {
    "read-only": lambda: read_only(np.arange(4.0)),
    "broadcast": lambda: np.lib.stride_tricks.as_strided(np.ones(1), (4,), (0,)),
    "windows": lambda: np.lib.stride_tricks.as_strided(np.arange(8.0), (3, 4), (8, 8)),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_arrays_that_cannot_be_written_stay_as_they_are(name: str) -> None:
    theta, inna = UNWRITABLE[name](), INNA()
    assert not can_be_written(theta)
    before, grad = theta.copy(), np.ones(theta.shape)
    moved, state = update_in_place(inna, grad, inna.init(theta), theta, 0.1)
    np.testing.assert_array_equal(theta, before)
    np.testing.assert_array_equal(moved, before + inna.update(grad, inna.init(before), before, 0.1)[0])
    assert not np.shares_memory(moved, theta)
    assert moved.flags.writeable
    assert state.velocity.any()


N = 2 * BLOCK


def aliased(of: str) -> dict[str, Any]:
    """Return arguments of a step of which two share memory."""
    buffer = np.ones(N + 1)
    return {
        "the gradient is the parameter": {"theta": (x := buffer[1:]), "grad": x},
        "the gradient overlaps the parameter": {"theta": buffer[1:], "grad": buffer[:-1]},
        "the gradient overlaps the velocity": {"grad": buffer[1:], "velocity": buffer[:-1]},
        "the velocity is the parameter": {"theta": (x := buffer[1:]), "velocity": x},
    }[of]


BAD: dict[str, tuple[Callable[[], dict[str, Any]], type[Exception], str]] = {
    **{
        name: (lambda name=name: aliased(name), ValueError, "shares memory with")
        for name in (
            "the gradient is the parameter",
            "the gradient overlaps the parameter",
            "the gradient overlaps the velocity",
            "the velocity is the parameter",
        )
    },
    "a longer gradient": (lambda: {"grad": np.ones(N + 1)}, ValueError, r"Invalid grad: shape \(131073,\)"),
    "another dtype": (lambda: {"grad": np.ones(N, "float32")}, TypeError, "Invalid grad: dtype float32"),
    "a shorter velocity": (lambda: {"velocity": np.ones(BLOCK)}, ValueError, "Invalid state.velocity: shape"),
    "a negative lr": (lambda: {"lr": -0.1}, ValueError, r"Invalid lr: -0\.1 "),
    "lr not a number": (lambda: {"lr": np.nan}, ValueError, "Invalid lr: nan "),
    "a negative decay": (lambda: {"weight_decay": -1.0}, ValueError, r"Invalid weight_decay: -1\.0 "),
    "a counter of another dtype": (lambda: {"step": np.ones((), "float32")}, TypeError, "Invalid state.step: dtype"),
    "no state": (lambda: {"state": None}, TypeError, "Invalid state: NoneType"),
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_is_changed_where_a_check_fails(name: str) -> None:
    make, error, message = BAD[name]
    algorithm, given = INNAprop(), {"theta": np.ones(N), "grad": np.full(N, 2.0), "lr": 0.1, "weight_decay": 0.1}
    given |= (state := algorithm.init(given["theta"])._asdict()) | make()
    state = given.pop("state", algorithm.state_type(**{name: given.pop(name) for name in state}))
    held = [x for x in (given["theta"], given["grad"], *(state or ())) if isinstance(x, np.ndarray)]
    before = [x.copy() for x in held]
    with pytest.raises(error, match=message):
        update_in_place(algorithm, given.pop("grad"), state, **given)
    for x, old in zip(held, before, strict=True):
        np.testing.assert_array_equal(x, old)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_needs_memory_for_ten_blocks_at_most(name: str) -> None:
    """Whereas an array like theta is 40 blocks."""
    algorithm, theta = ALGORITHMS[name], np.ones(40 * BLOCK)
    grad, state = np.ones_like(theta), algorithm.init(theta)
    tracemalloc.start()
    try:
        update_in_place(algorithm, grad, state, theta, 0.1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert BLOCK * theta.itemsize < peak < 10 * BLOCK * theta.itemsize
