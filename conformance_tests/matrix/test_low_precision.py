"""Low precision that trains: compensated parameters end where rounding the float64 result would, on every host."""

from functools import cache
from typing import Any

import numpy as np
import pytest

import inna_core
from conformance_tests.matrix.cases import EPS, Setup, representable
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import row
from conformance_tests.matrix.table import HOSTS

ALGORITHM = "INNA"
HYPER, LR, SIZE = {"alpha": 0.5, "beta": 0.1}, 0.01, 256

DTYPE = "bfloat16"
ROWS = [row(host) for host in HOSTS if DTYPE in host.state_dtypes]
TIERS_OF_STEPS = {300: "default", 2000: "nightly"}
"""By number of steps; without compensation the error is 100 and 300 times that of one rounding."""
SAME_STEPS, SAME_SIZE = 100, 2048


@cache
def noisy_quadratic(dtype: str, steps: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return a start, gradients rounded to a dtype, and where INNA ends with them in float64."""
    rng = np.random.default_rng(0)
    curvature, target = 10 ** rng.uniform(-2, 1, SIZE), rng.standard_normal(SIZE)
    start = representable(rng.standard_normal(SIZE), dtype)
    inna, theta, grads = inna_core.INNA(**HYPER), start, []
    state = inna.init(theta)
    for _ in range(steps):
        grads.append(representable(curvature * (theta - target) + 0.3 * rng.standard_normal(SIZE), dtype))
        delta, state = inna.update(grads[-1], state, theta, LR)
        theta = theta + delta
    return start, grads, theta


@pytest.mark.parametrize(
    ("host", "steps"),
    [
        row(host, steps, id=f"{steps} steps", tier=tier)
        for host in HOSTS
        if DTYPE in host.state_dtypes
        for steps, tier in TIERS_OF_STEPS.items()
    ],
)
def test_noisy_steps_end_within_rounding(host: Host, steps: int, open_run: Any) -> None:
    """At most twice the error of rounding the float64 result once; one rounding per step costs 10 times that."""
    start, grads, want = noisy_quadratic(DTYPE, steps)

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found - want) / np.linalg.norm(want))

    rounding = error(representable(want, DTYPE))
    run = open_run(host, Setup(ALGORITHM, HYPER, (LR,), DTYPE), [start])
    theta, v = start, np.zeros(SIZE)
    for g in grads:
        run.step([g])
        theta = representable(theta + LR * (v - HYPER["beta"] * g), DTYPE)
        v = (1 - HYPER["alpha"] * LR) * v - LR * (1 - HYPER["alpha"] * HYPER["beta"]) * g
    assert error(run.read().params[0]) <= 2 * rounding
    assert error(theta) > 10 * rounding  # or the problem would show nothing


@pytest.mark.parametrize("host", ROWS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_compensated_sum_is_the_same_on_every_host(host: Host, dtype: str, open_run: Any) -> None:
    """Each host follows Kahan's sum with exact increments; two runs of it are one and the same, bit by bit.

    Increments come from float32 arithmetic, whose last digit is each compiler's own: rarely that tips a rounding. So at
    most one parameter in 200 may lie elsewhere, and by one spacing. What parameter and compensation hold together loses
    at most half an eps of the compensation in a step, which is half an eps of the parameter; near zero, half a spacing
    of float16's subnormal numbers.
    """
    rng = np.random.default_rng(1)
    start = representable(rng.standard_normal(SAME_SIZE), dtype)
    grads = [representable(rng.standard_normal(SAME_SIZE), dtype) for _ in range(SAME_STEPS)]
    runs = []
    for _ in range(2):
        run = open_run(host, Setup(ALGORITHM, HYPER, (LR,), dtype), [start])
        for g in grads:
            run.step([g])
        runs.append(run.read())
    theta, v, c, largest = start, np.zeros(SAME_SIZE), np.zeros(SAME_SIZE), np.abs(start)
    for g in grads:
        y = LR * (v - HYPER["beta"] * g) + c
        v = (1 - HYPER["alpha"] * LR) * v - LR * (1 - HYPER["alpha"] * HYPER["beta"]) * g
        before, theta = theta, representable(theta + representable(y, dtype), dtype)
        c, largest = representable(y - (theta - before), dtype), np.maximum(largest, np.abs(theta))
    got, again = runs
    np.testing.assert_array_equal(got.params[0], again.params[0])
    np.testing.assert_array_equal(got.state["compensation"][0], again.state["compensation"][0])
    eps = EPS[dtype]
    elsewhere = got.params[0] != theta
    assert elsewhere.mean() <= 1 / 200
    assert np.all(np.abs(got.params[0] - theta) <= eps * largest)
    both = got.params[0] + got.state["compensation"][0]
    each_step = eps * eps / 2 * largest + (2.0**-24 if dtype == "float16" else 0.0)
    assert np.all(np.abs(both - (theta + c)) <= SAME_STEPS * each_step)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_rounds_by_bits_as_it_casts(dtype: str) -> None:
    """All numbers of the dtype, the ties between them and their neighbours, beyond the largest, infinite, NaN."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    single = pytest.importorskip("inna_torch.paths.single")
    narrow = getattr(torch, dtype)
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(narrow).float()
    odd_ones = torch.tensor([2**31 - 1, -1, 0x7F800001], dtype=torch.int32).view(torch.float32)  # other NaNs
    numbers = torch.cat([numbers[numbers.isfinite()].unique(), torch.tensor([torch.inf, -torch.inf, torch.nan])])
    ties = (numbers[1:] / 2 + numbers[:-1] / 2).nan_to_num()
    x = torch.cat(
        [odd_ones, numbers, ties, *(torch.nextafter(ties, torch.tensor(to)) for to in (-torch.inf, torch.inf))]
    )
    assert len(x.unique()) > 2**17
    torch.testing.assert_close(
        single.rounded_by_bits(x, narrow), x.to(narrow).float(), rtol=0.0, atol=0.0, equal_nan=True
    )
