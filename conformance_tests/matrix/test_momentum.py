"""Momentum and lead in place of alpha and beta (`inna_core.coefficients`), on every host."""

from functools import cache
from typing import Any

import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import EPS, Algorithm, Case, Setup, random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import FULLEST, row, tier_of_property
from conformance_tests.matrix.table import ALGORITHMS, BY_NAME, HOSTS

SHAPES = ((20,),)
N_STEPS = 200


def tier_of_row(host: Host, algorithm: Algorithm) -> str:
    """Return the tier: hosts in processes of their own run the algorithm with the largest state, the rest nightly."""
    if host.compiled or (host.env and algorithm is not FULLEST):
        return "nightly"
    return tier_of_property(host)


def rows() -> list[Any]:
    return [
        row(host, algorithm, id=algorithm.name, tier=tier_of_row(host, algorithm))
        for host in HOSTS
        for algorithm in ALGORITHMS
        if "lead" in algorithm.optional
    ]


def problem(k: int) -> Any:
    """Return numbers that every dtype of the test holds."""
    return random_arrays(k, SHAPES, "float32")[0]


def case_of(algorithm: Algorithm) -> Case:
    """Return the case whose step size rises from 0 and falls back to 0."""
    return algorithm.case_with("lead")


@cache
def wanted(name: str) -> Any:
    """Return the last iterate, in 50 digits."""
    algorithm = BY_NAME[name]
    setup, theta = case_of(algorithm).setup("float64"), oracle.exact(problem(0))
    state = dict.fromkeys(algorithm.state, 0 * theta)
    for k in range(N_STEPS):
        step = oracle.one_step(algorithm, setup, problem(k + 1), theta, state, k)
        theta, state = step.theta, step.state
    return theta


@pytest.mark.parametrize(("host", "algorithm"), rows())
def test_a_schedule_from_zero_to_zero_stays_on_the_papers_trajectory(
    host: Host, algorithm: Algorithm, open_run: Any
) -> None:
    """200 steps within 4,500 eps (1e-12 in float64) of the psi recurrence, alpha and beta following each step size."""
    want = wanted(algorithm.name)
    run = open_run(host, case_of(algorithm).setup(host.wide), [problem(0)])
    for k in range(N_STEPS):
        run.step([problem(k + 1)])
    error = oracle.largest(oracle.exact(run.read().params[0]) - want)
    assert error <= 4500 * EPS[host.wide] * oracle.largest(want)
    assert oracle.largest(want - oracle.exact(problem(0))) > 0.1


CONFLICTS: dict[str, tuple[dict[str, float], str]] = {
    "alpha beside momentum": ({"momentum": 0.9, "alpha": 0.5}, r"Invalid alpha: 0\.5 "),
    "beta beside momentum": ({"momentum": 0.9, "beta": 0.1}, r"Invalid beta: 0\.1 "),
    "lead without momentum": ({"lead": 2.0}, r"Invalid lead: 2\.0 "),
}


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize(("host", "algorithm"), rows())
def test_the_two_parametrizations_exclude_each_other(
    host: Host, algorithm: Algorithm, conflict: str, open_run: Any
) -> None:
    hyper, message = CONFLICTS[conflict]
    with pytest.raises(ValueError, match=message):
        open_run(host, Setup(algorithm.name, hyper, (0.1,), host.wide), random_arrays(0, SHAPES))


@pytest.mark.parametrize(("host", "algorithm"), rows())
def test_published_decay_needs_alpha_and_beta(host: Host, algorithm: Algorithm, open_run: Any) -> None:
    setup = Setup(algorithm.name, {"momentum": 0.9}, (0.1,), host.wide, 0.1, published_decay=True)
    with pytest.raises(ValueError, match="Invalid published_decay: True"):
        open_run(host, setup, random_arrays(0, SHAPES)).step(random_arrays(1, SHAPES))
