"""`inna_keras.save_state` and `load_state`, on each backend in a process of its own."""

from pathlib import Path
from typing import Any

import pytest

from conformance_tests.tiers import nightly_but

pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")


@pytest.fixture(params=nightly_but(["tensorflow"], ["tensorflow", "torch", "jax"]))
def call(request: pytest.FixtureRequest, on_keras: Any) -> Any:
    return lambda name, *rest: on_keras(request.param, f"portable.keras_scenarios:{name}", *map(str, rest))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("INNAprop", "bfloat16"),
        *(pytest.param("INNAprop", dtype, marks=pytest.mark.nightly) for dtype in ("float32", "float16")),
        *(pytest.param("INNA", dtype, marks=pytest.mark.nightly) for dtype in ("float32", "float16", "bfloat16")),
    ],
)
def test_a_run_goes_on_bit_by_bit(name: str, dtype: str, call: Any, tmp_path: Path) -> None:
    call("a_run_goes_on", name, dtype, tmp_path / "state")


def test_a_load_that_fails_changes_nothing(call: Any, tmp_path: Path) -> None:
    call("a_load_that_fails_changes_nothing", tmp_path / "state")


def test_states_are_saved_and_loaded_between_steps(call: Any, tmp_path: Path) -> None:
    call("gradients_in_parts", tmp_path / "state")


def test_optimizers_of_others_are_refused(call: Any, tmp_path: Path) -> None:
    call("optimizers_of_others", tmp_path / "state")


@pytest.mark.parametrize("name", ["INNA", pytest.param("INNAprop", marks=pytest.mark.nightly)])
def test_loss_scaling_skips_gradients_that_are_not_finite(name: str, call: Any) -> None:
    assert call("non_finite_gradients", name) == (False, True)
