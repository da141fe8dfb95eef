"""Low precision that trains: compensated parameters end where rounding the float64 result would, on every host."""

from typing import Any

import numpy as np
import pytest

import inna_core
from conformance_tests.cases import Setup, representable
from conformance_tests.conftest import skip_if_missing
from conformance_tests.hosts import HOSTS, Host

HYPER, LR, N_STEPS, SIZE = {"alpha": 0.5, "beta": 0.1}, 0.01, 2000, 256

DTYPE = "bfloat16"
ROWS = [pytest.param(host, id=host.name) for host in HOSTS if DTYPE in host.state_dtypes]


def noisy_quadratic(dtype: str) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return a start, 2000 gradients rounded to a dtype, and where INNA ends with them in float64."""
    rng = np.random.default_rng(0)
    curvature, target = 10 ** rng.uniform(-2, 1, SIZE), rng.standard_normal(SIZE)
    start = representable(rng.standard_normal(SIZE), dtype)
    inna, theta, grads = inna_core.INNA(**HYPER), start, []
    state = inna.init(theta)
    for _ in range(N_STEPS):
        grads.append(representable(curvature * (theta - target) + 0.3 * rng.standard_normal(SIZE), dtype))
        delta, state = inna.update(grads[-1], state, theta, LR)
        theta = theta + delta
    return start, grads, theta


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    return noisy_quadratic(DTYPE)


@pytest.mark.parametrize("host", ROWS)
def test_2000_steps_end_within_rounding(host: Host, problem: Any, open_run: Any) -> None:
    """At most twice the error of rounding the float64 result once; one rounding per step costs 10 times that."""
    skip_if_missing(host)
    start, grads, want = problem

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found - want) / np.linalg.norm(want))

    rounding = error(representable(want, DTYPE))
    run = open_run(host, Setup("INNA", HYPER, (LR,), DTYPE), [start])
    theta, v = start, np.zeros(SIZE)
    for g in grads:
        run.step([g])
        theta = representable(theta + LR * (v - HYPER["beta"] * g), DTYPE)
        v = (1 - HYPER["alpha"] * LR) * v - LR * (1 - HYPER["alpha"] * HYPER["beta"]) * g
    assert error(run.read().params[0]) <= 2 * rounding
    assert error(theta) > 10 * rounding  # or the problem would show nothing
