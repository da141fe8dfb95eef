"""Summaries in Keras: against difference quotients for every layer, against torch, and what they leave alone."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from conformance_tests.distances import largest
from conformance_tests.newton.networks import closeness, skip_without, torch_summary
from conformance_tests.tiers import nightly_but

SCENARIOS = "conformance_tests.newton.keras_scenarios"

BACKENDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow"}


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
def test_networks_agree_with_torch(network: str, backend: str, order: int, workers: Any) -> None:
    skip_without("torch", "keras", BACKENDS[backend])
    worker = workers({"KERAS_BACKEND": backend})
    got = worker.call(f"{SCENARIOS}:network_summary", network, order)
    assert closeness(got, torch_summary(network, order)) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_promotes_float64_to_float32_but_on_tensorflow(backend: str, workers: Any) -> None:
    """The reason for `KERAS_PRECISION`, with floatx and the dtype policy at float64: no setting helps."""
    skip_without("keras", BACKENDS[backend])
    dtype = workers({"KERAS_BACKEND": backend}).call(f"{SCENARIOS}:promoted")
    assert dtype == ("float64" if backend == "tensorflow" else "float32")


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
def test_layers_agree_with_difference_quotients(layer: str, workers: Any) -> None:
    """On TensorFlow, which computes in float64: relative to the largest entry of g, H and T, to 1e-8."""
    skip_without("keras", "tensorflow")
    errors = workers({"KERAS_BACKEND": "tensorflow"}).call(f"{SCENARIOS}:layer_errors", layer)
    assert largest(errors) <= 1e-8


@pytest.fixture(scope="module")
def on_tensorflow(workers: Any) -> Callable[[str], Any]:
    """Summaries of networks with a layer, on TensorFlow, for both other backends."""
    return cache(lambda layer: workers({"KERAS_BACKEND": "tensorflow"}).call(f"{SCENARIOS}:layer_summary", layer))


@pytest.mark.parametrize("layer", nightly_but(ON_ALL_BACKENDS, KERAS_LAYERS))
@pytest.mark.parametrize("backend", nightly_but(["torch"], ["torch", "jax"]))
def test_layers_agree_on_all_backends(backend: str, layer: str, workers: Any, on_tensorflow: Any) -> None:
    skip_without("keras", "tensorflow", backend)
    if (backend, layer) == ("jax", "SimpleRNN"):
        pytest.skip("Keras' SimpleRNN cannot be called in float64 on JAX: its tanh returns float32 inside a scan")
    got = workers({"KERAS_BACKEND": backend}).call(f"{SCENARIOS}:layer_summary", layer)
    assert closeness(got, on_tensorflow(layer)) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_spectral_normalisation_is_refused_by_name(backend: str, workers: Any) -> None:
    skip_without("keras", BACKENDS[backend])
    messages = workers({"KERAS_BACKEND": backend}).call(f"{SCENARIOS}:refusals_of_spectral_normalisation")
    assert len(messages) == 2
    assert all("Invalid model: its layer spectral is a SpectralNormalization" in message for message in messages)


def test_moments_in_a_tensorflow_function_are_refused(workers: Any) -> None:
    skip_without("keras", "tensorflow")
    message = workers({"KERAS_BACKEND": "tensorflow"}).call(f"{SCENARIOS}:refusal_of_moments_in_a_function")
    assert "Invalid loss_fn: it calls tf.nn.moments inside a loop, a branch or a tf.function" in message


@pytest.mark.parametrize("backend", nightly_but(["tensorflow", "torch"], BACKENDS))
def test_moving_averages_stay_during_a_summary(backend: str, workers: Any) -> None:
    skip_without("keras", BACKENDS[backend])
    assert workers({"KERAS_BACKEND": backend}).call(f"{SCENARIOS}:moving_averages_stay")


@pytest.mark.parametrize("backend", nightly_but(["tensorflow", "torch"], BACKENDS))
def test_layers_in_other_threads_are_not_affected(backend: str, workers: Any) -> None:
    """Models that are trained during a summary move their averages: no layer is patched."""
    skip_without("keras", BACKENDS[backend])
    moved = workers({"KERAS_BACKEND": backend}).call(f"{SCENARIOS}:layers_in_other_threads")
    assert moved == {"own model": True, "other model": True}
