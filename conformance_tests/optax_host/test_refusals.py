"""What the optax transformations refuse, by argument and leaf."""

from typing import Any

import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

from conformance_tests.optax_host.scenarios import TRANSFORMS, gradients, largest_difference, make, tree  # noqa: E402

each_transform = pytest.mark.parametrize("name", TRANSFORMS)


def without_bias(p: Any) -> Any:
    return {**p, "bias": None}


WRONG: dict[str, tuple[Any, str]] = {
    "a state of something else": (
        lambda name, p: make(name).update(p, optax.sgd(0.1, 0.9).init(p), p),
        r"Invalid state: tuple \(expected \w+State",
    ),
    "a leaf without gradient": (
        lambda name, p: make(name).update(without_bias(p), make(name).init(p), p),
        r"Invalid updates: a tree .* \(expected the structure of the parameters given to init",
    ),
    "a leaf without gradient, no parameters": (
        lambda name, p: make(name, weight_decay=0.0).update(without_bias(p), make(name).init(p)),
        r"Invalid updates: a tree .* \(expected the structure of the parameters given to init",
    ),
    "a state of fewer parameters": (
        lambda name, p: make(name).update(p, make(name).init(without_bias(p)), p),
        r"Invalid state.velocity: a tree .* \(expected the structure of updates",
    ),
    "a leaf too few in params": (
        lambda name, p: make(name).update(p, make(name).init(p), {"kernel": p["kernel"]}),
        r"Invalid params: a tree .* \(expected the structure of updates",
    ),
    "a gradient of another shape": (
        lambda name, p: make(name).update({**p, "bias": jnp.ones(3)}, make(name).init(p), p),
        r"Invalid updates\['bias'\]: a gradient of shape \(3,\) \(expected the parameter's, \(16,\)\)",
    ),
    "an integer gradient": (
        lambda name, p: make(name).update({**p, "bias": jnp.ones(16, int)}, make(name).init(p), p),
        r"Invalid updates\['bias'\]: a gradient of dtype int64 \(expected a real floating-point dtype, "
        "since the parameter's is float64\\)",
    ),
    "a complex gradient of a real parameter": (
        lambda name, p: make(name).update({**p, "bias": 1j * p["bias"]}, make(name).init(p), p),
        r"Invalid updates\['bias'\]: a gradient of dtype complex128 \(expected a real floating-point dtype",
    ),
    "an integer parameter": (
        lambda name, p: make(name).init({**p, "bias": jnp.ones(16, int)}),
        r"Invalid params\['bias'\]: dtype int64 \(expected a real or complex floating-point dtype\)",
    ),
    "a mask of strings": (
        lambda name, p: make(name, mask="all").update(p, make(name).init(p), p),
        r"Invalid mask\['bias'\]: 'all' \(expected True, False or a 0-d boolean array\)",
    ),
    "a schedule below 0": (
        lambda name, p: make(name, learning_rate=lambda step: -0.1).update(p, make(name).init(p), p),
        r"Invalid learning_rate: -0.1 \(expected a finite number >= 0\)",
    ),
    "a schedule of vectors": (
        lambda name, p: make(name, learning_rate=lambda step: jnp.ones(1)).update(p, make(name).init(p), p),
        r"Invalid learning_rate: .*\(expected a finite number >= 0, or a 0-d array",
    ),
}
"""By what is wrong: the call, and the error, which names the argument and the leaf."""


@each_transform
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(name: str, wrong: str) -> None:
    call, message = WRONG[wrong]
    with pytest.raises((TypeError, ValueError), match=message):
        call(name, tree(0))


@each_transform
def test_missing_parameters_are_named_where_they_are_needed(name: str) -> None:
    params, grads = tree(0), gradients()
    transform = make(name)
    with pytest.raises(ValueError, match=r"Invalid params: None \(expected the current parameters"):
        transform.update(grads[0], transform.init(params))
    without = make(name, weight_decay=0.0)
    alone, _ = without.update(grads[0], without.init(params))
    given, _ = without.update(grads[0], without.init(params), params)
    assert largest_difference(alone, given) == 0.0
