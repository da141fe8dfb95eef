"""The optax transformations on eight devices that the host CPU stands for, in a process of its own."""

import importlib.util
from typing import Any

import pytest

from conformance_tests.worker import Worker

if importlib.util.find_spec("optax") is None:
    pytest.skip("optax is not installed", allow_module_level=True)

ENV = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
ROUNDING = 1e-13

each_transform = pytest.mark.parametrize("name", ["inna", "innaprop"])


@pytest.fixture
def eight(workers: Any) -> Worker:
    return workers(ENV)


@each_transform
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_named_sharding(name: str, jit: bool, eight: Worker) -> None:
    """The state lies where the parameters lie, and the trajectory is that of one device."""
    found = eight.call("conformance_tests.optax_checks:named_sharding", name, jit)
    difference = found.pop("difference")
    assert found == {"devices": 8, "fresh": True, "later": True, "params": True}
    assert difference <= ROUNDING


@each_transform
def test_shard_map(name: str, eight: Worker) -> None:
    found = eight.call("conformance_tests.optax_checks:shard_map", name)
    assert found["devices"] == 8
    assert found["difference"] <= ROUNDING


@each_transform
def test_data_parallel(name: str, eight: Worker) -> None:
    assert eight.call("conformance_tests.optax_checks:data_parallel", name) <= ROUNDING
