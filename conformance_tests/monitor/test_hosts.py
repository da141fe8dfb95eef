"""A monitor says the same of the same run on every host: what NumPy computes from the papers' equations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from conformance_tests.monitor import hosts
from conformance_tests.monitor.reference import BY_NAME, EVERY, FULLEST, N_STEPS, Setting, expected
from conformance_tests.packages import skip_without


@dataclass(frozen=True)
class Row:
    """A host; one with an environment runs in a process of its own."""

    package: str
    function: Callable[..., Any] | str
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    default: tuple[str, ...] = (FULLEST,)
    rtol: float = 1e-8


def keras(backend: str, default: tuple[str, ...] = (), rtol: float = 1e-8) -> Row:
    function = "conformance_tests.monitor.keras_scenarios:samples"
    return Row(backend, function, env={"KERAS_BACKEND": backend}, default=default, rtol=rtol)


ROWS = {
    "torch": Row("torch", hosts.torch_samples, default=tuple(BY_NAME)),
    "torch-single": Row("torch", hosts.torch_samples, {"foreach": False}),
    "torch-foreach": Row("torch", hosts.torch_samples, {"foreach": True}),
    "torch-compiled": Row("torch", hosts.torch_samples, {"compiled": True}, default=()),
    "optax": Row("optax", hosts.optax_samples, default=()),
    "optax-jit": Row("optax", hosts.optax_samples, {"jit": True}),
    "optax-inject": Row("optax", hosts.optax_samples, {"jit": True, "inject": True}, default=()),
    "keras-tensorflow": keras("tensorflow"),
    # Keras computes in float32 there in part, whatever the layers' dtype, and one setting is close to its limit
    "keras-jax": keras("jax", rtol=1e-5),
    "keras-torch": keras("torch", (FULLEST,), rtol=1e-5),
}

PAIRS = [
    pytest.param(host, name, marks=[] if name in row.default else [pytest.mark.nightly])
    for host, row in ROWS.items()
    for name in BY_NAME
]


@pytest.fixture
def samples(workers: Any) -> Callable[[str, Setting], list[dict[str, float]]]:
    def samples(host: str, setting: Setting) -> list[dict[str, float]]:
        row = ROWS[host]
        skip_without(row.package, *(["keras"] if row.env else []))
        if isinstance(row.function, str):
            return workers(row.env).call(row.function, setting)
        return row.function(setting, **row.options)

    return samples


@pytest.mark.parametrize(("host", "name"), PAIRS)
def test_samples_are_those_of_the_equations(host: str, name: str, samples: Any) -> None:
    found, wanted = samples(host, BY_NAME[name]), expected(BY_NAME[name])
    assert [sample["step"] for sample in found] == list(range(EVERY, N_STEPS + 1, EVERY))
    for sample, reference in zip(found, wanted, strict=True):
        assert set(sample) == set(reference)
        for key, value in reference.items():
            np.testing.assert_allclose(sample[key], value, rtol=ROWS[host].rtol, atol=1e-12, err_msg=key)
