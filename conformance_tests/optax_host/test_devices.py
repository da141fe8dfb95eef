"""The optax transformations on eight devices that the host CPU stands for, in a process of its own."""

from typing import Any

import pytest

from conformance_tests.backend_process import Worker
from conformance_tests.matrix.table import ALGORITHMS
from conformance_tests.packages import skip_without

skip_without("optax")

ENV = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
ROUNDING = 1e-13

each_transform = pytest.mark.parametrize("name", [algorithm.optax for algorithm in ALGORITHMS])


@pytest.fixture
def eight(workers: Any) -> Worker:
    return workers(ENV)


SHARDINGS: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "eager": (False, "Auto", {}),
    "jit": (True, "Auto", {}),
    "eager, explicit": (False, "Explicit", {}),
    "jit, explicit": (True, "Explicit", {}),
    "jit, compensated": (True, "Auto", {"kahan_sum": True}),
}
"""By name: whether it is jitted, the kind of the mesh's axes, and arguments of the transformation."""


@each_transform
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_states_are_sharded_as_parameters_are(name: str, sharding: str, eight: Worker) -> None:
    """The state lies where the parameters lie, and the trajectory is that of one device."""
    jit, axis_type, options = SHARDINGS[sharding]
    found = eight.call("conformance_tests.optax_host.device_scenarios:named_sharding", name, jit, axis_type, options)
    difference, fields = found.pop("difference"), found.pop("fields")
    assert found == {"devices": 8, "fresh": True, "later": True, "params": True}
    assert ("compensation" in fields) == ("kahan_sum" in options)
    assert difference <= ROUNDING


@each_transform
def test_steps_inside_shard_map_are_those_of_one_device(name: str, eight: Worker) -> None:
    found = eight.call("conformance_tests.optax_host.device_scenarios:shard_map", name)
    assert found["devices"] == 8
    assert found["difference"] <= ROUNDING


@each_transform
def test_data_parallel_training_is_that_of_one_device(name: str, eight: Worker) -> None:
    assert eight.call("conformance_tests.optax_host.device_scenarios:data_parallel", name) <= ROUNDING
