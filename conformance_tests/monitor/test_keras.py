"""`inna_keras.Monitor` on each backend: what it leaves alone, what it logs, refusals."""

from typing import Any

import numpy as np
import pytest

from conformance_tests.tiers import nightly_but

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture
def call(backend: str, on_keras: Any) -> Any:
    return lambda function, *arguments: on_keras(backend, f"monitor.keras_scenarios:{function}", *arguments)


@pytest.mark.parametrize("backend", nightly_but(["torch"], BACKENDS))
@pytest.mark.parametrize("name", nightly_but(["INNAprop"], ["INNA", "INNAprop"]))
def test_a_monitor_changes_no_bit(name: str, call: Any) -> None:
    same, samples = call("disturbance", name)
    assert same
    assert samples == [(2, False), (4, True), (6, False), (8, True), (10, False), (12, True)]


# of calls of two steps each the second, third, fifth and sixth pass a multiple of 3; torch has calls of one step only
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("backend", "steps_per_execution", "expected"),
    [("tensorflow", 2, [4, 6, 10, 12]), ("jax", 2, [4, 6, 10, 12]), ("torch", 1, [3, 6, 9, 12])],
)
def test_the_logs_have_the_last_sample(steps_per_execution: int, expected: list[int], call: Any) -> None:
    history, columns, steps = call("logged", steps_per_execution)
    names = {"velocity_norm", "energy", "sharpness", "stable_sharpness", "stability_ratio"}
    assert names < set(history)
    assert names < set(columns)
    assert np.isfinite([history[name] for name in names]).all()
    np.testing.assert_allclose(
        history["stability_ratio"], np.divide(history["sharpness"], history["stable_sharpness"]), rtol=1e-12
    )
    assert steps == expected


@pytest.mark.parametrize("backend", nightly_but(["torch"], BACKENDS))
def test_what_is_wrong_is_named(call: Any) -> None:
    assert call("refusals") == [
        "ValueError: Invalid every: 0 (expected an int >= 1)",
        "TypeError: Invalid data: ndarray (expected (x, y), (x, y, sample_weight) or None)",
        "TypeError: Invalid data: tuple of 1 (expected (x, y), (x, y, sample_weight) or None)",
        "TypeError: Invalid optimizer: SGD (expected inna_keras.INNA or INNAprop)",
    ]
