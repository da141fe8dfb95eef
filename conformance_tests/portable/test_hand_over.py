"""Runs that stop in one framework and go on in another end where they would have ended without."""

import importlib
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="safetensors is not installed")

from conformance_tests.packages import skip_without
from conformance_tests.portable import network
from conformance_tests.portable.hand_over import END, HALF, HOSTS, module_of
from conformance_tests.portable.network import TRAININGS, Arrays, Leg

BOUND = 1e-12

KEPT = {
    ("INNA", "arrays", "torch"),
    ("INNA", "optax", "arrays"),
    ("INNAprop", "torch", "optax"),
}
"""Pairs of the default tier; the others are nightly."""


def pairs() -> list[Any]:
    every = product(TRAININGS, HOSTS, HOSTS)
    return [pytest.param(*row, marks=[] if row in KEPT else [pytest.mark.nightly]) for row in every]


@pytest.fixture
def run(workers: Any) -> Any:
    """Run a leg on a host, in its own process where it has one."""

    def run(host: str, leg: Leg) -> Arrays:
        _, packages, env = HOSTS[host]
        skip_without(*packages)
        module = module_of(host)
        return workers(env).call(f"{module}:run", leg) if env else importlib.import_module(module).run(leg)

    return run


@pytest.fixture(scope="module")
def half_way() -> dict[tuple[str, str], str]:
    """Files saved half-way, by algorithm and host."""
    return {}


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Arrays]:
    """Parameters at the end of uninterrupted runs in NumPy, by algorithm."""
    from conformance_tests.portable import arrays_host

    return {name: arrays_host.run(Leg(training, 0, END)) for name, training in TRAININGS.items()}


@pytest.mark.parametrize(("algorithm", "source", "target"), pairs())
def test_a_run_goes_on_in_another_framework(
    algorithm: str,
    source: str,
    target: str,
    run: Any,
    half_way: dict[tuple[str, str], str],
    uninterrupted: dict[str, Arrays],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    training = TRAININGS[algorithm]
    if (algorithm, source) not in half_way:
        path = str(tmp_path_factory.mktemp("states") / "state.safetensors")
        run(source, Leg(training, 0, HALF, save=path))
        half_way[algorithm, source] = path
    leg = Leg(training, HALF, END, load=half_way[algorithm, source], source=HOSTS[source][0])
    assert network.relative_error(run(target, leg), uninterrupted[algorithm]) <= BOUND


@pytest.mark.parametrize("algorithm", ["INNA", pytest.param("INNAprop", marks=pytest.mark.nightly)])
def test_a_run_goes_through_keras_torch_and_optax(
    algorithm: str, run: Any, uninterrupted: dict[str, Arrays], tmp_path: Any
) -> None:
    """It starts in Keras on TensorFlow and ends in optax."""
    training, first, second = TRAININGS[algorithm], str(tmp_path / "first"), str(tmp_path / "second")
    run("keras-tensorflow", Leg(training, 0, 30, save=first))
    run("torch", Leg(training, 30, 60, load=first, source="keras", save=second))
    end = run("optax", Leg(training, 60, END, load=second, source="torch"))
    assert network.relative_error(end, uninterrupted[algorithm]) <= BOUND


@pytest.mark.parametrize("algorithm", TRAININGS)
def test_the_comparison_notices_a_billionth_of_the_learning_rate(
    algorithm: str, uninterrupted: dict[str, Arrays]
) -> None:
    """A relative change of lr by 1e-9 is already too much."""
    from conformance_tests.portable import arrays_host

    training = TRAININGS[algorithm]
    other = arrays_host.run(Leg(replace(training, lr=training.lr * (1 + 1e-9)), 0, END))
    assert network.relative_error(other, uninterrupted[algorithm]) > BOUND
