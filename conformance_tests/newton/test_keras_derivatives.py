"""Summaries in Keras: against difference quotients for every layer, against torch, and what they leave alone."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from conformance_tests.distances import largest
from conformance_tests.newton.networks import closeness, torch_summary
from conformance_tests.packages import skip_without
from conformance_tests.tiers import nightly_but

SCENARIOS = "newton.keras_scenarios"

BACKENDS = ("torch", "jax", "tensorflow")


KERAS_PRECISION = {"tensorflow": 1e-10, "torch": 1e-4, "jax": 1e-4}
"""Of summaries, relative to their largest entry. Keras 3 promotes float64 to float32 on torch (matmul, losses) and on
JAX (tanh), whatever floatx and the policy say, see the test below: what is compared there is float32. A wrong
derivative is wrong by more than 1e-2."""


FORMS = {("tensorflow", 3), ("torch", 3)}
"""Backends and orders of the default tier; JAX, which compiles longest, is in it through the trainer."""


@pytest.mark.parametrize("network", nightly_but(["mlp"], ["mlp", "cnn"]))
@pytest.mark.parametrize(
    ("backend", "order"),
    [
        pytest.param(backend, order, marks=[] if (backend, order) in FORMS else [pytest.mark.nightly])
        for backend in BACKENDS
        for order in (2, 3)
    ],
)
def test_networks_agree_with_torch(network: str, backend: str, order: int, on_keras: Any) -> None:
    skip_without("torch")
    got = on_keras(backend, f"{SCENARIOS}:network_summary", network, order)
    assert closeness(got, torch_summary(network, order)) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize(("backend", "expected"), [("tensorflow", "float64"), ("torch", "float32"), ("jax", "float32")])
def test_keras_promotes_float64_to_float32_but_on_tensorflow(backend: str, expected: str, on_keras: Any) -> None:
    """The reason for `KERAS_PRECISION`, with floatx and the dtype policy at float64: no setting helps."""
    assert on_keras(backend, f"{SCENARIOS}:promoted") == expected


KERAS_LAYERS = (
    *("Dense", "Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "SimpleRNN", "Embedding"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "LayerNormalization", "BatchNormalization"),
    *("LayerNormalization, axes apart", "BatchNormalization, second axis", "GroupNormalization", "RMSNormalization"),
    *("UnitNormalization", "nested layers", "moments of one's own"),
    *("relu", "gelu", "silu", "softplus", "softmax"),
)


ONE_OF_EACH_KIND = (
    *("Conv2D", "Embedding", "MaxPooling2D", "LayerNormalization", "BatchNormalization", "GroupNormalization"),
    *("nested layers", "moments of one's own", "softmax"),
)
ON_ALL_BACKENDS = ("BatchNormalization",)
"""Of the layers, what stays in the default tier (Dense is in the networks above); the others are nightly."""


@pytest.mark.parametrize("layer", nightly_but(ONE_OF_EACH_KIND, KERAS_LAYERS))
def test_layers_agree_with_difference_quotients(layer: str, on_keras: Any) -> None:
    """On TensorFlow, which computes in float64: relative to the largest entry of g, H and T, to 1e-8."""
    errors = on_keras("tensorflow", f"{SCENARIOS}:layer_errors", layer)
    assert largest(errors) <= 1e-8


@pytest.fixture(scope="module")
def on_tensorflow(on_keras: Callable[..., Any]) -> Callable[[str], Any]:
    """Summaries of networks with a layer, on TensorFlow, for both other backends."""
    return cache(lambda layer: on_keras("tensorflow", f"{SCENARIOS}:layer_summary", layer))


def layers_elsewhere() -> list[Any]:
    """Return (backend, layer) for both other backends, nightly but those of the default tier."""
    pairs = [(backend, layer) for backend in ("torch", "jax") for layer in KERAS_LAYERS]
    pairs.remove(("jax", "SimpleRNN"))  # Keras' tanh returns float32 inside a scan there, for which float64 is an error
    kept = [("torch", layer) for layer in ON_ALL_BACKENDS]
    return [pytest.param(*pair, marks=[] if pair in kept else [pytest.mark.nightly]) for pair in pairs]


@pytest.mark.parametrize(("backend", "layer"), layers_elsewhere())
def test_layers_agree_on_all_backends(backend: str, layer: str, on_keras: Any, on_tensorflow: Any) -> None:
    got = on_keras(backend, f"{SCENARIOS}:layer_summary", layer)
    assert closeness(got, on_tensorflow(layer)) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_spectral_normalisation_is_refused_by_name(backend: str, on_keras: Any) -> None:
    messages = on_keras(backend, f"{SCENARIOS}:refusals_of_spectral_normalisation")
    assert len(messages) == 2
    assert all("Invalid model: its layer spectral is a SpectralNormalization" in message for message in messages)


def test_moments_in_a_tensorflow_function_are_refused(on_keras: Any) -> None:
    message = on_keras("tensorflow", f"{SCENARIOS}:refusal_of_moments_in_a_function")
    assert "Invalid loss_fn: it calls tf.nn.moments inside a loop, a branch or a tf.function" in message


@pytest.mark.parametrize("backend", nightly_but(["tensorflow", "torch"], BACKENDS))
def test_moving_averages_stay_during_a_summary(backend: str, on_keras: Any) -> None:
    assert on_keras(backend, f"{SCENARIOS}:moving_averages_stay")


@pytest.mark.parametrize("backend", nightly_but(["tensorflow", "torch"], BACKENDS))
def test_layers_in_other_threads_are_not_affected(backend: str, on_keras: Any) -> None:
    """Models that are trained during a summary move their averages: no layer is patched."""
    moved = on_keras(backend, f"{SCENARIOS}:layers_in_other_threads")
    assert moved == {"own model": True, "other model": True}
