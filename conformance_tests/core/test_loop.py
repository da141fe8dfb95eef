"""`iterate`: the papers' trajectory on arrays of any library, in any structure, and continued from a file."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts.arrays import LIBRARIES
from conformance_tests.matrix.table import BY_NAME
from inna_core import INNA, INNAprop, INNAState, iterate, portable
from inna_core.schedules import PowerDecay

pytestmark = pytest.mark.fast

N_STEPS = 60
CURVATURES = np.asarray([0.5, 1.0, 3.0, 10.0])
START = np.asarray([1.0, -2.0, 0.5, 1.5])
SHIFTS = np.random.default_rng(0).standard_normal((N_STEPS, 4))
SCHEDULE = PowerDecay(0.1, 1 / 4)

ALGORITHMS: dict[str, tuple[Any, dict[str, float]]] = {
    "INNA": (INNA(momentum=0.9, lead=2.0), {"momentum": 0.9, "lead": 2.0}),
    "INNAprop": (INNAprop(alpha=2.0, beta=2.0), {"alpha": 2.0, "beta": 2.0, "sigma": 0.999, "eps": 1e-8}),
}


def gradient(theta: Any, shift: Any) -> Any:
    """Return the gradient of a quadratic whose minimum a batch moves, for floats and for numbers of the oracle."""
    return CURVATURES * (theta - shift)


@cache
def trajectory(name: str) -> list[np.ndarray]:
    """Return the iterates of the paper's recurrence in 50 digits."""
    number = oracle.exact
    row, (_, hyper) = BY_NAME[name], ALGORITHMS[name]
    setup = Setup(name, hyper, tuple(map(SCHEDULE, range(N_STEPS))))
    theta, state = number(START), {field: 0 * number(START) for field in row.state}
    found = []
    for k, shift in enumerate(SHIFTS):
        step = oracle.one_step(row, setup, gradient(theta, number(shift)), theta, state, k)
        theta, state = step.theta, step.state
        found.append(oracle.rounded(theta))
    return found


PACKAGES = {"numpy": "numpy", "numpy_readonly": "numpy", "strict": "array_api_strict", "torch": "torch", "jax": "jax"}


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("library", PACKAGES)
def test_the_loop_follows_the_papers_recurrence(library: str, name: str) -> None:
    """Every iterate within 1e-12; the gradient is that of the loop's own iterate."""
    pytest.importorskip(PACKAGES[library])
    arrays = LIBRARIES[library](False)

    def make(x: np.ndarray) -> Any:
        return arrays.make(x, "float64", None)

    start, curvatures, want = make(START), make(CURVATURES), trajectory(name)
    found = iterate(
        ALGORITHMS[name][0],
        {"w": start},
        lambda t, shift: {"w": curvatures * (t["w"] - shift)},
        map(make, SHIFTS),
        SCHEDULE,
    )
    step = 0
    for k, (theta, state, step) in enumerate(found):
        assert np.abs(arrays.read(theta["w"]) - want[k]).max() <= 1e-12
        assert (list(state), step) == (["w"], k + 1)
    assert step == N_STEPS
    np.testing.assert_array_equal(arrays.read(start), START)


STRUCTURES: dict[str, Any] = {
    "array": np.arange(6.0).reshape(2, 3),
    "list": [np.arange(4.0), np.asarray(2.0)],
    "dict": {"w": np.arange(4.0), "b": np.asarray(2.0)},
    "nested": {"layers": [{"w": np.ones((2, 3)), "b": np.zeros(3)}, (np.ones(2),)], "scale": np.asarray(2.0)},
}


def doubled(tree: Any) -> Any:
    """Return the gradient of the squared norm of a tree."""
    if isinstance(tree, dict):
        return {key: doubled(part) for key, part in tree.items()}
    return type(tree)(map(doubled, tree)) if isinstance(tree, list | tuple) else 2 * tree


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, list | tuple) else [tree]


def skeleton(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: skeleton(part) for key, part in tree.items()}
    return type(tree)(map(skeleton, tree)) if type(tree) in (list, tuple) else type(tree).__name__


@pytest.mark.parametrize("name", STRUCTURES)
def test_iterates_have_the_structure_of_the_parameters(name: str) -> None:
    """Each array moves as it would alone."""
    start, inna = STRUCTURES[name], INNA()
    before = [x.copy() for x in leaves(start)]
    *_, (theta, state, _) = iterate(inna, start, lambda theta, _: doubled(theta), range(3), 0.1)
    assert skeleton(theta) == skeleton(start)
    assert str(skeleton(state)) == str(skeleton(start)).replace("ndarray", "INNAState")
    for alone, x, old in zip(before, leaves(theta), leaves(start), strict=True):
        np.testing.assert_array_equal(old, alone)
        *_, (want, _, _) = iterate(inna, alone, lambda theta, _: 2 * theta, range(3), 0.1)
        np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_loop_continues_from_an_iterate_bitwise(name: str) -> None:
    algorithm, half = ALGORITHMS[name][0], N_STEPS // 2
    *_, uninterrupted = iterate(algorithm, START, gradient, SHIFTS, SCHEDULE)
    *_, (theta, state, step) = iterate(algorithm, START, gradient, SHIFTS[:half], SCHEDULE)
    held = [np.copy(x) for x in (theta, *state)]
    *_, rest = iterate(algorithm, theta, gradient, SHIFTS[half:], SCHEDULE, state=state, step=step)
    np.testing.assert_array_equal(rest.theta, uninterrupted.theta)
    assert rest.step == uninterrupted.step
    for x, old in zip((theta, *state), held, strict=True):
        np.testing.assert_array_equal(x, old)


def test_a_loop_continues_from_a_portable_file_bitwise(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    path, inna, half = tmp_path / "run.safetensors", INNA(), N_STEPS // 2

    def of_dict(theta: Any, shift: Any) -> Any:
        return {"w": gradient(theta["w"], shift)}

    *_, uninterrupted = iterate(inna, {"w": START}, of_dict, SHIFTS, SCHEDULE)
    *_, (theta, state, step) = iterate(inna, {"w": START}, of_dict, SHIFTS[:half], SCHEDULE)
    slots = {name: {"velocity": s.velocity} for name, s in state.items()}
    portable.save(path, portable.PortableState("arrays", "INNA", step, slots, theta))
    loaded = portable.load(path)
    state = {name: INNAState(**arrays) for name, arrays in loaded.slots.items()}
    theta = dict(loaded.parameters)
    *_, rest = iterate(inna, theta, of_dict, SHIFTS[half:], SCHEDULE, state=state, step=loaded.step or 0)
    np.testing.assert_array_equal(rest.theta["w"], uninterrupted.theta["w"])


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a missing key": ({"a": np.ones(3)}, ValueError, r"Invalid gradient: a dict with keys \['a'\]"),
    "a list": ([np.ones(3), np.ones(2)], ValueError, "Invalid gradient: 2 arrays"),
    "a longer list": (
        {"a": np.ones(3), "b": [np.ones(2), np.ones(2)]},
        ValueError,
        r"Invalid gradient\['b'\]: 2 arrays",
    ),
    "a shape": ({"a": np.ones(3), "b": [np.ones(3)]}, ValueError, r"Invalid grad: shape \(3,\)"),
    "a dtype": ({"a": np.ones(3), "b": [np.ones(2, "float32")]}, TypeError, "Invalid grad: dtype float32"),
    "a number": ({"a": np.ones(3), "b": [1.0]}, TypeError, r"Invalid grad: 1\.0 "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_gradient_leaves_the_iterate_unchanged(name: str) -> None:
    bad, error, message = BAD[name]
    good = {"a": np.ones(3), "b": [np.ones(2)]}
    found = iterate(INNA(), {"a": np.ones(3), "b": [np.ones(2)]}, lambda _, batch: batch, [good, bad], 0.1)
    theta, state, _ = next(found)
    held = [*leaves(theta), *(s.velocity for s in (state["a"], *state["b"]))]
    before = [x.copy() for x in held]
    with pytest.raises(error, match=message):
        next(found)
    for x, old in zip(held, before, strict=True):
        np.testing.assert_array_equal(x, old)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name for an algorithm": ({"algorithm": "INNA"}, "Invalid algorithm: 'INNA'"),
    "a class for an algorithm": ({"algorithm": INNA}, "Invalid algorithm: <class"),
    "an array for a gradient": ({"gradient": START}, "Invalid gradient: array"),
    "a number for batches": ({"batches": 3}, r"Invalid batches: 3 \(expected an iterable"),
    "no step": ({"step": None}, r"Invalid step: None \(expected an int >= 0\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_of_a_wrong_type_are_refused_at_the_call(name: str) -> None:
    given, message = REFUSED[name]
    arguments = {"algorithm": INNA(), "theta": START, "gradient": gradient, "batches": [], "lr": 0.1, **given}
    with pytest.raises(TypeError, match=message):
        iterate(**arguments)


def test_bad_states_and_parameters_are_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="Invalid theta: dtype int64"):
        iterate(INNA(), np.arange(3), gradient, [], 0.1)
    with pytest.raises(TypeError, match=r"Invalid state: INNApropState \(expected INNAState"):
        iterate(INNA(), START, gradient, [], 0.1, state=INNAprop().init(START))
    with pytest.raises(ValueError, match="Invalid state: a dict"):
        iterate(INNA(), [START], gradient, [], 0.1, state={"w": INNA().init(START)})
