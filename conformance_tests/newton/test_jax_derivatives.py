"""Summaries in JAX: against difference quotients for every layer, and against torch."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from conformance_tests.distances import largest
from conformance_tests.newton.jax_networks import JAX_LAYERS, flax_layers, jax_layer
from conformance_tests.newton.networks import (
    closeness,
    jax_loss,
    largest_errors,
    problem,
    torch_summary,
)
from conformance_tests.packages import skip_without
from conformance_tests.tiers import nightly_but

# long, so on the worker that begins with the matrix' rows of optax
pytestmark = pytest.mark.xdist_group("optax")


@pytest.fixture
def jax_on_cpu() -> Iterator[None]:
    """On GPUs JAX rounds the derivatives of max pooling in float64 to single precision, with a warning."""
    skip_without("jax")
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        yield


ONE_OF_EACH_KIND = (
    *("dense", "convolution", "max pooling", "layer normalisation", "attention", "embedding", "scan", "checkpoint"),
    *("relu", "softmax"),
)


IN_THE_LOOP = ("dense", "attention")
"""Of these layers, what is in the default tier as a loop over groups too, not only with groups unrolled."""


def layers_and_forms() -> list[Any]:
    """Return (layer, most groups that are unrolled)."""
    kept = [*((name, 32) for name in ONE_OF_EACH_KIND), *((name, 0) for name in IN_THE_LOOP)]
    pairs = [(name, unrolled) for name in [*JAX_LAYERS, *flax_layers()] for unrolled in (0, 32)]
    assert set(kept) <= set(pairs)
    return [pytest.param(*pair, marks=[] if pair in kept else [pytest.mark.nightly]) for pair in pairs]


@pytest.mark.usefixtures("jax_on_cpu")
@pytest.mark.parametrize(("name", "unrolled"), layers_and_forms())
def test_layers_agree_with_difference_quotients(name: str, unrolled: int) -> None:
    """Behind a dense layer, in float64, entry by entry and in the loop: relative to the largest entry, to 1e-8."""
    skip_without("jax", "optax", *(["flax"] if name.startswith("flax") else []))
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from inna_optax.newton import derivatives

    rng = np.random.default_rng(1)
    weights, layer, shape = jax_layer(name, rng)
    first = jnp.asarray(rng.normal(0, 0.5, (shape[-1], shape[-1])))
    params = {"first": first, **weights}
    direction = {key: jnp.asarray(rng.normal(0, 0.5, p.shape)) for key, p in params.items()}
    x = jnp.asarray(rng.normal(0, 1, shape))
    y = jnp.asarray(rng.normal(0, 1, jax.eval_shape(lambda: layer(weights, x)).shape))

    def loss(p: Any) -> Any:
        return jnp.mean((jnp.tanh(layer({key: p[key] for key in weights}, x @ p["first"])) - y) ** 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives, "MAX_UNROLLED_GROUPS", unrolled)
        both = jax.jit(lambda p: (loss(p), derivatives.summary(loss, p, direction)))

        def evaluate(group: int, by: float) -> tuple[float, Any]:
            # a dict's leaves, and so the groups, come in the order of their names
            moved = {key: params[key] + by * direction[key] * (s == group) for s, key in enumerate(sorted(params))}
            value, found = both(moved)
            return float(value), [np.asarray(a) for a in found]

        assert largest(largest_errors(evaluate, len(params))) <= 1e-8


def forms_of_summaries() -> list[Any]:
    """Return (most groups that are unrolled, whether jitted, order), nightly but these."""
    kept = [(0, True, 3), (32, True, 3), (0, True, 2)]
    every = list(product((0, 32), (True, False), (2, 3)))
    return [pytest.param(*form, marks=[] if form in kept else [pytest.mark.nightly]) for form in every]


def jax_summary(network: str, unrolled: int, jit: bool, order: int) -> list[np.ndarray]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from inna_optax.newton import derivatives

    weights, direction, x, y = problem(network)
    params, moves = [jnp.asarray(w) for w in weights], [jnp.asarray(u) for u in direction]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives, "MAX_UNROLLED_GROUPS", unrolled)
        compute = lambda p, u: derivatives.summary(jax_loss(network, x, y), p, u, order=order)  # noqa: E731
        found = (jax.jit(compute) if jit else compute)(params, moves)
    return [np.asarray(a) for a in found]


@pytest.mark.parametrize("network", nightly_but(["mlp"], ["mlp", "cnn"]))
@pytest.mark.parametrize(("unrolled", "jit", "order"), forms_of_summaries())
def test_networks_agree_with_torch(network: str, unrolled: int, jit: bool, order: int) -> None:
    skip_without("torch", "jax", "optax")
    assert closeness(jax_summary(network, unrolled, jit, order), torch_summary(network, order)) <= 1e-10
