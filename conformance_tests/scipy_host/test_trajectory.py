"""With a fixed learning rate the iterates are those of the papers' recurrence."""

from typing import Any

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.problems import PROBLEMS, Problem
from conformance_tests.matrix.table import BY_NAME

minimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed").minimize
from inna_scipy import inna  # noqa: E402

pytestmark = pytest.mark.fast

N_STEPS = 200
HYPER: dict[str, tuple[dict[str, float], float]] = {
    "alpha and beta": ({"alpha": 0.5, "beta": 0.1}, 1.0),
    "momentum and lead": ({"momentum": 0.8, "lead": 3.0}, 0.1),
}
"""Hyperparameters, and by what they multiply the problem's learning rate."""


def papers_trajectory(problem: Problem, hyper: dict[str, float], lr: float) -> np.ndarray:
    (theta,), row = map(oracle.exact, problem.start()), BY_NAME["INNA"]
    state, found = {"velocity": 0 * theta}, [theta]
    for k in range(N_STEPS):
        (g,) = problem.gradient([theta])
        step = oracle.one_step(row, Setup("INNA", hyper, (lr,)), oracle.exact(0 * theta) + g, theta, state, k)
        theta, state = step.theta, step.state
        found.append(theta)
    return oracle.rounded(np.stack(found))


@pytest.mark.parametrize("name", HYPER)
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.exact], ids=lambda problem: problem.name)
def test_iterates_follow_the_papers_recurrence(problem: Problem, name: str) -> None:
    """200 steps within 2e-12 of the recurrence in 50 digits, relative to the largest iterate."""
    hyper, factor = HYPER[name]
    lr = factor * problem.lr
    calls = []

    def jac(x: np.ndarray) -> Any:
        return problem.gradient([x])[0]

    def fun(x: np.ndarray) -> float:
        calls.append(x)
        return 0.0

    (x0,) = problem.start()
    options = {"lr": lr, "gtol": 0.0, "maxiter": N_STEPS, "return_all": True, **hyper}
    found = minimize(fun, x0, jac=jac, method=inna, options=options)
    want = papers_trajectory(problem, hyper, lr)
    np.testing.assert_allclose(found.allvecs, want, rtol=0, atol=2e-12 * np.abs(want).max())
    assert np.abs(want[-1] - want[0]).max() > 0.1
    # the objective itself plays no part in the steps
    assert (found.nit, found.njev, found.nfev, len(calls)) == (N_STEPS, N_STEPS + 1, 1, 1)
    assert found.status == 1
