"""`inna_keras.Monitor` on each backend: what it leaves alone, what it logs, refusals."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from conformance_tests.tiers import nightly_but

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture
def call(backend: str, workers: Any) -> Any:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    worker = workers({"KERAS_BACKEND": backend})
    return lambda function, *arguments: worker.call(f"conformance_tests.monitor.keras_scenarios:{function}", *arguments)


@pytest.mark.parametrize("backend", nightly_but(["torch"], BACKENDS))
@pytest.mark.parametrize("name", nightly_but(["INNAprop"], ["INNA", "INNAprop"]))
def test_a_monitor_changes_no_bit(name: str, call: Any) -> None:
    same, samples = call("disturbance", name)
    assert same
    assert samples == [(2, False), (4, True), (6, False), (8, True), (10, False), (12, True)]


@pytest.mark.parametrize("backend", nightly_but([], BACKENDS))
def test_the_logs_have_the_last_sample(backend: str, call: Any) -> None:
    history, columns, steps = call("logged")
    names = {"velocity_norm", "energy", "sharpness", "stable_sharpness", "stability_ratio"}
    assert names < set(history)
    assert names < set(columns)
    assert np.isfinite([history[name] for name in names]).all()
    np.testing.assert_allclose(
        history["stability_ratio"], np.divide(history["sharpness"], history["stable_sharpness"]), rtol=1e-12
    )
    # calls of two steps each, of which the second, third, fifth and sixth pass a multiple of 3
    assert steps == ([4, 6, 10, 12] if backend != "torch" else [3, 6, 9, 12])


@pytest.mark.parametrize("backend", nightly_but(["torch"], BACKENDS))
def test_what_is_wrong_is_named(call: Any) -> None:
    assert call("refusals") == [
        "ValueError: Invalid every: 0 (expected an int >= 1)",
        "TypeError: Invalid data: ndarray (expected (x, y), (x, y, sample_weight) or None)",
        "TypeError: Invalid data: tuple of 1 (expected (x, y), (x, y, sample_weight) or None)",
        "TypeError: Invalid optimizer: SGD (expected inna_keras.INNA or INNAprop)",
    ]
