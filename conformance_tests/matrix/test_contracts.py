"""What every host promises besides the numbers."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest

from conformance_tests.matrix.cases import Case, Refusal, Setup, random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.hosts.run import Snapshot
from conformance_tests.matrix.rows import FULLEST, row, tier_of_dtype, tier_of_property, tier_of_refusal
from conformance_tests.matrix.table import ALGORITHMS, DEFAULTS, HOSTS


def rows(chosen: Callable[[Host], bool] = lambda host: True, compiled: Collection[Case] = ()) -> list[Any]:
    """Return a row a host and algorithm; on compiled hosts nightly, but for the cases given."""

    def tier(host: Host, case: Case) -> str:
        return tier_of_property(host) if case in compiled or not host.compiled else "nightly"

    return [
        row(host, case, id=case.algorithm, tier=tier(host, case)) for host in HOSTS if chosen(host) for case in DEFAULTS
    ]


ROWS = rows()


def identical(a: Snapshot, b: Snapshot) -> bool:
    fields_a, fields_b = {"params": a.params, **a.state}, {"params": b.params, **b.state}
    return fields_a.keys() == fields_b.keys() and all(
        np.array_equal(x, y) for name in fields_a for x, y in zip(fields_a[name], fields_b[name], strict=True)
    )


def wide(host: Host, case: Case) -> Setup:
    return case.setup(host.wide)


def zeros() -> list[np.ndarray]:
    return [0 * p for p in random_arrays(0)]


@pytest.mark.parametrize(("host", "case"), ROWS)
def test_zero_gradients_from_rest_are_an_exact_no_op(host: Host, case: Case, open_run: Any) -> None:
    start = random_arrays(0, dtype=host.wide)
    run = open_run(host, wide(host, case), start)
    for _ in range(20):
        run.step(zeros())
    assert identical(run.read(), Snapshot(start, {name: zeros() for name in run.read().state}))


@pytest.mark.parametrize(("host", "case"), ROWS)
def test_gradients_are_not_mutated(host: Host, case: Case, open_run: Any) -> None:
    grads = random_arrays(1, dtype=host.wide)
    run = open_run(host, wide(host, case), random_arrays(0, dtype=host.wide))
    for _ in range(3):
        returned = run.step(grads)
        assert all(np.array_equal(x, y) for x, y in zip(returned, grads, strict=True))


@pytest.mark.parametrize(("host", "case"), rows(lambda host: host.pure))
def test_parameters_and_state_are_not_mutated(host: Host, case: Case, open_run: Any) -> None:
    run = open_run(host, wide(host, case), random_arrays(0, dtype=host.wide))
    for k in range(3):
        before = run.read()
        run.step(random_arrays(k, dtype=host.wide))
        assert identical(run.previous(), before)
        assert not identical(run.read(), before)


@pytest.mark.parametrize(
    ("host", "case", "dtype"),
    [
        row(host, case, dtype, id=f"{case.algorithm}-{dtype}", tier=tier_of_dtype(host, case, dtype))
        for host in HOSTS
        for case in DEFAULTS
        for dtype in host.dtypes
    ],
)
def test_dtype_shape_device_and_namespace_are_kept(host: Host, case: Case, dtype: str, open_run: Any) -> None:
    run = open_run(host, case.setup(dtype), random_arrays(0, dtype=dtype))
    run.step(random_arrays(1, dtype=dtype))
    first = run.facts()
    run.step(random_arrays(2, dtype=dtype))
    assert run.facts() == first
    assert [fact.shape for fact in first["params"]] == [p.shape for p in random_arrays(0)]
    assert {fact.dtype for fact in first["params"]} == {dtype}
    for name, facts in first.items():
        like_the_parameter = name in ("params", "compensation")
        assert {fact.dtype for fact in facts} == {dtype if like_the_parameter else host.state_dtypes.get(dtype, dtype)}
        assert [(f.shape, f.device, f.namespace) for f in facts] == [
            (f.shape, f.device, f.namespace) for f in first["params"]
        ]


@pytest.mark.parametrize(
    ("host", "case", "dtype"),
    [
        row(host, case, dtype, id=f"{case.algorithm}-{dtype}", tier=tier_of_dtype(host, case, dtype))
        for host in HOSTS
        for case in DEFAULTS
        # the widest dtype, and the narrowest or all whose state is wider and has a compensation
        for dtype in dict.fromkeys((host.wide, *(host.state_dtypes or [host.narrow])))
    ],
)
def test_save_and_resume_continues_bitwise(host: Host, case: Case, dtype: str, open_run: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "saved")
    run = open_run(host, case.setup(dtype), random_arrays(0, dtype=dtype))
    for k in range(5):
        run.step(random_arrays(k + 1, dtype=dtype))
    run.save(path)
    halfway = run.read()
    for k in range(5, 10):
        run.step(random_arrays(k + 1, dtype=dtype))
    resumed = open_run(host, case.setup(dtype), random_arrays(99, dtype=dtype))
    resumed.load(path)
    assert identical(resumed.read(), halfway)
    for k in range(5, 10):
        resumed.step(random_arrays(k + 1, dtype=dtype))
    assert identical(resumed.read(), run.read())


REFUSED = [
    row(
        host,
        algorithm.case_with(refusal.argument),
        refusal,
        id=f"{algorithm.name}-{refusal.id}",
        tier=tier_of_refusal(host, refusal, algorithm.refusals),
    )
    for host in HOSTS
    for algorithm in ALGORITHMS
    for refusal in algorithm.refusals
    # what is traced has no value to refuse
    if not host.traces_hyper and (refusal.argument != "lr" or host.reads_lr != "never")
]


@pytest.mark.parametrize(("host", "case", "refusal"), REFUSED)
def test_invalid_hyperparameters_are_refused_by_name(host: Host, case: Case, refusal: Refusal, open_run: Any) -> None:
    dtype = host.wide
    bad = {**case.hyper, "lr": case.lrs[0], "weight_decay": 0.0, refusal.argument: refusal.value}
    lr, decay = bad.pop("lr"), bad.pop("weight_decay")
    setup = Setup(case.algorithm, bad, (lr,), dtype, decay)
    name = host.lr_name if refusal.argument == "lr" else refusal.argument
    with pytest.raises(refusal.error) as caught:
        # the core takes lr with the step, the other hosts with the optimizer
        open_run(host, setup, random_arrays(0, dtype=dtype)).step(random_arrays(1, dtype=dtype))
    assert f"Invalid {name}: {refusal.value!r} (expected " in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), -1.0])
@pytest.mark.parametrize(("host", "case"), rows(lambda host: host.reads_lr == "each step"))
def test_a_learning_rate_that_turns_bad_changes_nothing(host: Host, case: Case, bad: float, open_run: Any) -> None:
    dtype = host.wide
    run = open_run(host, Setup(case.algorithm, case.hyper, (case.lrs[0], bad), dtype), random_arrays(0, dtype=dtype))
    run.step(random_arrays(1, dtype=dtype))
    before = run.read()
    with pytest.raises(ValueError, match="Invalid lr"):
        run.step(random_arrays(2, dtype=dtype))
    assert identical(run.read(), before)


def longer(grads: list[np.ndarray]) -> list[np.ndarray]:
    return [*grads[:-1], np.ones((2, 5))]


BAD_GRADIENTS = {
    "shape of the last one": (longer, None),
    "integer dtype": (lambda grads: grads, "int32"),
    "complex dtype": (lambda grads: grads, "complex64"),
}


@pytest.mark.parametrize("bad", BAD_GRADIENTS)
@pytest.mark.parametrize(("host", "case"), rows(compiled=[FULLEST.default]))
def test_a_bad_gradient_changes_nothing(host: Host, case: Case, bad: str, open_run: Any) -> None:
    spoil, gradient_dtype = BAD_GRADIENTS[bad]
    dtype = host.wide
    run = open_run(host, wide(host, case), random_arrays(0, dtype=dtype))
    run.step(random_arrays(1, dtype=dtype))
    before = run.read()
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        run.step(spoil(random_arrays(2, dtype=dtype)), gradient_dtype)
    assert "grad" in str(caught.value)
    assert identical(run.read(), before)


@pytest.mark.parametrize(("host", "case"), ROWS)
def test_integer_parameters_are_refused(host: Host, case: Case, open_run: Any) -> None:
    with pytest.raises(TypeError, match=r"int32.*floating-point( or complex)? dtype"):
        open_run(host, case.setup("int32"), [np.ones(3)])


@pytest.mark.parametrize(("host", "case"), rows(lambda host: host.complex_moment is None))
def test_complex_parameters_are_refused_where_they_are_not_supported(host: Host, case: Case, open_run: Any) -> None:
    with pytest.raises(TypeError, match=r"complex64.*real floating-point dtype"):
        open_run(host, case.setup("complex64"), [np.ones(3)])
