"""Secondary conformance: free-running trajectories against the psi recurrence.

Rounding errors build up here, so each bound says for how many steps of which problem it holds. The problems are
contractive, or the comparison would measure the problem and not the host.
"""

from typing import Any

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import EPS, Setup, decaying, random_arrays, representable
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.problems import PROBLEMS, Problem
from conformance_tests.matrix.rows import row, tier_of_property
from conformance_tests.matrix.table import HOSTS

ALGORITHM = "INNA"
HYPER = {"alpha": 0.5, "beta": 0.1}
N_STEPS, N_RANDOM_STEPS = 200, 100

WIDE = [row(host, tier=tier_of_property(host)) for host in HOSTS if "float64" in host.dtypes]


def psi_trajectory(params: list[Any], gradients: Any, lrs: tuple[float, ...], number: Any) -> list[list[Any]]:
    """Return the iterates of INNA in psi form, in the arithmetic of `number`, rounded to float64 at the end."""
    alpha, beta = number(HYPER["alpha"]), number(HYPER["beta"])
    psis = [(1 - alpha * beta) * theta for theta in params]
    iterates = [params]
    for k, lr in enumerate(lrs):
        grads = gradients(params, k)
        pairs = [
            oracle.inna(g, theta, psi, number(lr), alpha, beta)
            for g, theta, psi in zip(grads, params, psis, strict=True)
        ]
        params, psis = [theta for theta, _ in pairs], [psi for _, psi in pairs]
        iterates.append(params)
    return [list(map(oracle.rounded, params)) for params in iterates]


def relative(got: list[np.ndarray], want: list[np.ndarray], scale: float) -> float:
    return largest([g - w for g, w in zip(got, want, strict=True)]) / scale


def largest(*iterates: list[np.ndarray]) -> float:
    return float(np.max([np.max(np.abs(x), initial=0.0) for params in iterates for x in params]))


@pytest.fixture(scope="module")
def random_gradients() -> tuple[list[np.ndarray], list[list[np.ndarray]], list[list[Any]]]:
    start, lrs = random_arrays(5), decaying(0.1, 0.5, N_RANDOM_STEPS)
    grads = [random_arrays(100 + k) for k in range(N_RANDOM_STEPS)]
    exact = psi_trajectory(
        [oracle.exact(p) for p in start], lambda _, k: [oracle.exact(g) for g in grads[k]], lrs, oracle.mpmath.mpf
    )
    return start, grads, exact


@pytest.mark.parametrize("host", WIDE)
def test_random_gradients_with_a_decaying_lr_follow_the_psi_recurrence(
    host: Host, open_run: Any, random_gradients: Any
) -> None:
    """Within 1e-12, relative, of the psi recurrence in 50-digit arithmetic."""
    start, grads, want = random_gradients
    run = open_run(host, Setup(ALGORITHM, HYPER, decaying(0.1, 0.5, N_RANDOM_STEPS)), start)
    for k in range(N_RANDOM_STEPS):
        run.step(grads[k])
    assert relative(run.read().params, want[-1], largest(want[-1])) <= 1e-12


@pytest.fixture(scope="module")
def reference() -> Any:
    found: dict[str, list[list[Any]]] = {}

    def get(problem: Problem) -> list[list[Any]]:
        if problem.name not in found:
            pytest.importorskip("sklearn", reason="scikit-learn, which ships the data, is not installed")
            convert, number = (oracle.exact, oracle.mpmath.mpf) if problem.exact else (np.asarray, float)
            found[problem.name] = psi_trajectory(
                [convert(p) for p in problem.start()],
                lambda params, _: problem.gradient(params),
                decaying(problem.lr, 1 / 8, N_STEPS),
                number,
            )
        return found[problem.name]

    return get


ALL_PROBLEMS = ("numpy", "torch", "optax-jit")
"""Hosts that solve all problems in the default tier; the others solve one, since a gradient is a gradient to them."""


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        row(host, problem, id=problem.name, tier="default" if default else "nightly")
        for host in HOSTS
        for problem in PROBLEMS
        for default in [host.name in ALL_PROBLEMS or problem.name == "nonsmooth-rosenbrock"]
    ],
)
def test_problems_are_solved_along_the_reference_trajectory(
    host: Host, problem: Problem, open_run: Any, reference: Any
) -> None:
    """At every step within 1e4 eps of the reference: 2e-12 in float64, 1e-3 in float32."""
    want = reference(problem)
    dtype = host.wide
    start = [representable(p, dtype) for p in problem.start()]
    run = open_run(host, Setup(ALGORITHM, HYPER, decaying(problem.lr, 1 / 8, N_STEPS), dtype), start)
    scale = largest(*want)
    for k in range(N_STEPS):
        assert relative(run.read().params, want[k], scale) <= 1e4 * EPS[dtype], f"at step {k}"
        run.step([representable(g, dtype) for g in problem.gradient(run.read().params)])
    # a trajectory that goes nowhere would show nothing
    assert relative(want[0], want[-1], scale) > 0.1
