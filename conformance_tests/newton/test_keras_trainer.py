"""Summary-Newton's Keras trainer: as torch's, resumed, with callbacks, and as Keras sees a model."""

from typing import Any

import numpy as np
import pytest

from conformance_tests.newton.networks import problem, torch_loss
from conformance_tests.newton.torch_networks import torch_steps
from conformance_tests.tiers import nightly_but
from inna_core import INNA, StepSizes

LOSS_RTOL = {"torch": 1e-4, "jax": 1e-4, "tensorflow": 1e-9}
"""By backend: Keras computes in float32 on two of them, whatever it is given; see `test_keras_derivatives.py`."""

BACKENDS = nightly_but(["torch", "tensorflow"], LOSS_RTOL)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trains_as_torch_does_and_resumes_bit_for_bit(backend: str, on_keras: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    import inna_torch

    values, losses = on_keras(backend, "newton.keras_scenarios:trained", "INNA", 12)
    resumed, _ = on_keras(backend, "newton.keras_scenarios:trained", "INNA", 12, 5)
    assert all(np.array_equal(a, b) for a, b in zip(values, resumed, strict=True))
    weights, _, x, y = problem("mlp")
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    loss = torch_loss("mlp", x, y)
    rule = StepSizes(period=3, average=0.5, trust=0.1)
    optimizer = inna_torch.NewtonSummary(tensors, lambda: loss(tensors), INNA(), rule=rule)
    np.testing.assert_allclose(losses, torch_steps(optimizer, lambda: loss(tensors), 12), rtol=LOSS_RTOL[backend])


@pytest.mark.parametrize("backend", LOSS_RTOL)
def test_callbacks_set_the_damping_and_stop(backend: str, on_keras: Any) -> None:
    """ReduceLROnPlateau is the plateau rule; EarlyStopping and LearningRateScheduler work on the trainer as well."""
    found = on_keras(backend, "newton.keras_scenarios:with_callbacks")
    # the first epoch is the best; each later one is a plateau, down to min_lr
    assert found["dampings"] == [0.4, 0.2, 0.15, 0.15, 0.15]
    assert sorted(found["history"]) == ["learning_rate", "loss", "val_loss"]
    assert all(len(values) == 5 for values in found["history"].values())
    assert found["history"]["loss"] == found["logged"]
    assert found["scheduled"] == 0.25 * 0.15
    assert found["names"] == ["learning_rate", "loss"]
    assert "Invalid learning_rate: -1.0" in found["refused"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_trainer_sees_the_model_as_keras_does(backend: str, on_keras: Any) -> None:
    """Losses that the model adds, the present state of dropout, losses by name, settings, refusals."""
    found = on_keras(backend, "newton.keras_scenarios:as_keras_does")
    np.testing.assert_allclose(found["loss"], found["keras"], rtol=1e-5)
    assert found["keras"] > 10
    # the regularizer adds 2 lambda for each weight to the curvature along a direction of ones
    np.testing.assert_allclose(found["curvature"], found["own curvature"], rtol=1e-4)
    assert found["masks differ"]
    assert found["rule"]
    for argument in ("algorithm", "rule", "damping", "y", "x", "batch_size", "epochs", "summary_size"):
        assert f"Invalid {argument}: " in found["refusals"][argument], argument
    assert all("Invalid state: " in message for message in found["states"])
    assert found["kept"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_constraints_hold(backend: str, on_keras: Any) -> None:
    free, held = (on_keras(backend, "newton.keras_scenarios:one_step", name) for name in (None, "non_neg"))
    # Keras' constraint itself computes in float32 on two backends, see `LOSS_RTOL`
    assert np.allclose(held, np.maximum(free, 0.0), rtol=1e-6, atol=0.0)
    assert free.min() < 0.0 < free.max()
