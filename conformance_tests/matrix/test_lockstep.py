"""Primary conformance: one step at a time from the oracle's own state, on every host, in every dtype.

The bound is 4 eps of the dtype, relative to the largest term of the sum that is computed: what a few rounded operations
may cost, and nothing more. Rounding errors cannot build up, since each step starts from the oracle.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import EPS, SHAPES, Case, random_arrays, random_state, representable
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.hosts.run import Snapshot
from conformance_tests.matrix.rows import row, tier_of_case
from conformance_tests.matrix.table import BY_NAME, CASES, HOSTS

STEPS = (0, 1, 2, 20, 200)

ROWS = [
    row(host, dtype, case, id=f"{dtype}-{case.name}", tier=tier_of_case(host, case, dtype))
    for host in HOSTS
    for dtype in host.dtypes
    for case in CASES
]


class Exact(NamedTuple):
    """An array in 106 bits: the nearest float64 array, and what is left of it.

    The difference to a float64 array that is close is then exact in float64, and fast.
    """

    nearest: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, x: Any) -> "Exact":
        nearest = oracle.rounded(x)
        return cls(nearest, oracle.rounded(x - oracle.exact(nearest)))


class Task(NamedTuple):
    """One step from a random state, and what must come of it.

    Attributes:
        k: number of the step.
        grads: one array a parameter.
        before: parameters and state.
        want: the oracle's step for each parameter, its arrays `Exact`.
    """

    k: int
    grads: list[np.ndarray]
    before: Snapshot
    want: list[oracle.Step]


@cache
def tasks(name: str, dtype: str, state_dtype: str, traces_hyper: bool) -> list[Task]:
    """Return the steps of a case; 50 digits take their time, so hosts of one kind share them."""
    case = next(case for case in CASES if case.name == name)
    algorithm, setup = BY_NAME[case.algorithm], case.setup(dtype)
    if traces_hyper:
        setup = replace(setup, hyper={name: float(representable(x, state_dtype)) for name, x in setup.hyper.items()})
    found = []
    for k in STEPS:
        params, grads = random_arrays(k + 1, dtype=dtype), random_arrays(k + 1001, dtype=dtype)
        state = random_state(algorithm.state, k, SHAPES, state_dtype)
        if state_dtype != dtype:
            # a quarter of the spacing of numbers near the parameter
            state["compensation"] = [
                representable(EPS[dtype] / 4 * p * x, dtype) for p, x in zip(params, grads, strict=True)
            ]
        want: list[oracle.Step] = []
        for i, (theta, g) in enumerate(zip(params, grads, strict=True)):
            own = {name: values[i] for name, values in state.items()}
            step = oracle.one_step(algorithm, setup, g, theta + own.get("compensation", 0.0), own, k)
            state_next = {name: Exact.of(value) for name, value in step.state.items()}
            want.append(oracle.Step(Exact.of(step.theta), state_next, step.scales))
        found.append(Task(k, grads, Snapshot(params, state), want))
    return found


@pytest.mark.parametrize(("host", "dtype", "case"), ROWS)
def test_one_step_equals_the_papers_recurrence(host: Host, dtype: str, case: Case, open_run: Any) -> None:
    state_dtype = host.state_dtypes.get(dtype, dtype)
    run = open_run(host, case.setup(dtype), random_arrays(0, dtype=dtype))
    for task in tasks(case.name, dtype, state_dtype, host.traces_hyper):
        run.write(task.before, task.k)
        run.step(task.grads)
        got = run.read()
        for i, want in enumerate(task.want):
            check_close(got.params[i], want.theta, want.scales["theta"], 4 * EPS[dtype])
            if state_dtype != dtype:
                # what the parameter and its compensation hold together: twice the digits, but no more than float32's
                both = got.params[i] + got.state["compensation"][i]
                check_close(both, want.theta, want.scales["theta"], max(EPS[dtype] ** 2 / 4, 4 * EPS["float32"]))
            for name, value in want.state.items():
                check_close(got.state[name][i], value, want.scales[name], 4 * EPS[state_dtype])


def check_close(got: np.ndarray, want: Exact, scale: float, bound: float) -> None:
    error = np.max(np.abs((got - want.nearest) - want.rest), initial=0.0)
    assert got.shape == want.nearest.shape
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
