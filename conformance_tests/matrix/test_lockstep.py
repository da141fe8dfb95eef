"""Primary conformance: one step at a time from the oracle's own state, on every host, in every dtype.

The bound is 4 eps of the dtype, relative to the largest term of the sum that is computed: what a few rounded operations
may cost, and nothing more. Rounding errors cannot build up, since each step starts from the oracle.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.conftest import skip_if_missing
from conformance_tests.matrix.cases import CASES, EPS, SHAPES, Case, random_arrays, representable
from conformance_tests.matrix.hosts import HOSTS, Host
from conformance_tests.matrix.hosts.run import Snapshot

STEPS = (0, 1, 2, 20, 200)

ROWS = [
    pytest.param(host, dtype, case, id=f"{host.name}-{dtype}-{case.name}")
    for host in HOSTS
    for dtype in host.dtypes
    for case in CASES
]


@pytest.mark.parametrize(("host", "dtype", "case"), ROWS)
def test_one_step_equals_the_papers_recurrence(host: Host, dtype: str, case: Case, open_run: Any) -> None:
    skip_if_missing(host)
    state_dtype = host.state_dtypes.get(dtype, dtype)
    compensated = state_dtype != dtype
    setup = case.setup(dtype)
    if host.traces_hyper:
        setup = replace(setup, hyper={name: float(representable(x, state_dtype)) for name, x in setup.hyper.items()})
    run = open_run(host, case.setup(dtype), random_arrays(0, dtype=dtype))
    for k in STEPS:
        params, grads = random_arrays(k + 1, dtype=dtype), random_arrays(k + 1001, dtype=dtype)
        state = oracle.random_state(case.algorithm, k, SHAPES, state_dtype)
        if compensated:
            # a quarter of the spacing of numbers near the parameter
            owed = [representable(EPS[dtype] / 4 * p * x, dtype) for p, x in zip(params, grads, strict=True)]
            state["compensation"] = owed
        run.write(Snapshot(params, state), k)
        run.step(grads)
        got = run.read()
        for i, (theta, g) in enumerate(zip(params, grads, strict=True)):
            own = {name: values[i] for name, values in state.items()}
            want = oracle.one_step(setup, g, theta + own.get("compensation", 0.0), own, k)
            check_close(got.params[i], want.theta, want.scales["theta"], 4 * EPS[dtype])
            if compensated:
                # what the parameter and its compensation hold together: twice the digits, but no more than float32's
                both = got.params[i] + got.state["compensation"][i]
                check_close(both, want.theta, want.scales["theta"], max(EPS[dtype] ** 2 / 4, 4 * EPS["float32"]))
            for name, value in want.state.items():
                check_close(got.state[name][i], value, want.scales[name], 4 * EPS[state_dtype])


def check_close(got: np.ndarray, want: Any, scale: float, bound: float) -> None:
    error = oracle.largest(oracle.exact(got) - want)
    assert got.shape == np.shape(want)
    # where all terms are zero, what is left is the oracle's own rounding in 50 digits
    assert error <= bound * scale + 1e-45, f"{error:.2e} > {bound:.2e} x {scale:.2e}"


def test_representable_rounds_as_the_dtype_does() -> None:
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes, which checks our bfloat16 rounding, is not installed"
    )
    x = random_arrays(0, ((1000,),))[0]
    for dtype in EPS:
        native = x.astype(getattr(ml_dtypes, dtype, dtype)).astype(np.float64)
        assert np.array_equal(representable(x, dtype), native)
