"""From one summary after another to step sizes: the rule, its averages and bounds, and the direction."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inna_core import INNA, NewtonStatus, StepSizes, Summary, newton_step_sizes
from inna_core.newton import direction, next_state, partition, trusted_step


def scalar_summary(g: float, h: float, t: float) -> Summary:
    return Summary(np.asarray([float(g)]), np.asarray([[float(h)]]), np.asarray([float(t)]))


def eta_of(g: float, h: float, t: float) -> float:
    return float(newton_step_sizes(*scalar_summary(g, h, t), damping=1.0).eta[0])


SERIES = [(1.0, 2.0, 0.5), (2.0, 1.0, -0.3), (1.5, 4.0, 0.0), (0.5, 0.3, 2.0), (-1.0, 1.0, 1.0)]


def run(rule: StepSizes, series: list[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    """Return eta as kept, and as used, after each summary."""
    state = rule.init(scalar_summary(0, 0, 0))
    kept, used = [], []
    for row in series:
        state = rule.update(scalar_summary(*row), state)
        kept.append(float(state.eta[0]))
        used.append(float(rule.step_sizes(state)[0]))
    return kept, used


def test_without_averages_each_summary_gives_its_own_step_sizes() -> None:
    rule = StepSizes(average=0.0, start=1.0, share=0.0, rise=float("inf"), clip=False)
    kept, used = run(rule, SERIES)
    want = [eta_of(*row) for row in SERIES]
    np.testing.assert_allclose(kept, want, rtol=1e-14)
    assert used == kept
    assert want[-1] < 0
    clipped = run(replace(rule, clip=True), SERIES)
    assert clipped == ([*kept[:-1], 0.0], [*kept[:-1], 0.0])


def test_smoothing_starts_from_the_first_step_sizes() -> None:
    kept, _ = run(StepSizes(average=0.0, smoothing=0.25, start=1.0, rise=float("inf"), clip=False), SERIES)
    want = [eta_of(*SERIES[0])]
    for row in SERIES[1:]:
        want.append(0.25 * want[-1] + 0.75 * eta_of(*row))
    np.testing.assert_allclose(kept, want, rtol=1e-14)


def test_summaries_are_averaged_by_decay_or_window() -> None:
    kept, _ = run(StepSizes(average=0.75, start=1.0, rise=float("inf")), SERIES)
    mean, want = np.asarray(SERIES[0]), []
    for row in SERIES:
        mean = 0.75 * mean + 0.25 * np.asarray(row)
        want.append(eta_of(*mean))
    np.testing.assert_allclose(kept, want, rtol=1e-13)

    kept, _ = run(StepSizes(average=0.0, window=3, start=1.0, rise=float("inf")), SERIES)
    want = [eta_of(*np.mean(SERIES[max(0, k - 2) : k + 1], axis=0)) for k in range(len(SERIES))]
    np.testing.assert_allclose(kept, want, rtol=1e-13)


def test_step_sizes_are_zero_during_warmup() -> None:
    kept, _ = run(StepSizes(average=0.0, window=3, warmup=2, smoothing=0.9, start=1.0, rise=float("inf")), SERIES)
    assert kept[:2] == [0.0, 0.0]
    np.testing.assert_allclose(kept[2], eta_of(*np.mean(SERIES[:3], axis=0)), rtol=1e-13)


def test_step_sizes_rise_at_most_by_the_factor() -> None:
    series = [(1.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (1.0, 1e-6, 0.0), (1.0, 1e-6, 0.0), (1.0, 0.5, 0.0)]
    kept, _ = run(StepSizes(average=0.0, start=1.0, rise=1.5, clip=False), series)
    np.testing.assert_allclose(kept, [1.0, -1.0, 1.5, 2.25, 2.0], rtol=1e-14)


def test_step_sizes_begin_small() -> None:
    """A fraction of the first positive step size, whenever that comes, and from there as far as the rise allows."""
    series = [(-1.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 0.5, 0.0), (1.0, 10.0, 0.0)]
    kept, _ = run(StepSizes(average=0.0, start=0.25, rise=3.0), series)
    np.testing.assert_allclose(kept, [0.0, 0.25, 0.75, 2.0, 0.1], rtol=1e-14)


def test_share_mixes_in_proportional_step_sizes() -> None:
    """H couples two groups so that the second would step backward; hand-computed in the core's docstrings."""
    along = Summary(np.asarray([1.0, 1.0]), np.asarray([[1.0, 1.5], [1.5, 3.0]]), np.zeros(2))
    for share in (0.0, 0.25, 1.0):
        rule = StepSizes(share=share, start=1.0)
        eta = rule.step_sizes(rule.update(along, rule.init(along)))
        np.testing.assert_allclose(eta, [1 - share + share * 4 / 7, share * 4 / 21], rtol=1e-14)


def test_a_summary_that_is_not_finite_changes_nothing_but_the_status() -> None:
    rule = StepSizes()
    state = rule.update(scalar_summary(1, 2, 3), rule.init(scalar_summary(0, 0, 0)))
    new = rule.update(scalar_summary(1, float("nan"), 3), state)
    assert int(new.status) == NewtonStatus.FAILED
    assert all(np.array_equal(a, b) for a, b in zip(new[:-1], state[:-1], strict=True))


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        *((name, value, ValueError) for name in ("average", "smoothing") for value in (-0.1, 1.0, float("nan"))),
        *((name, -1.0, ValueError) for name in ("damping_int", "third_floor", "rise")),
        *((name, 1.5, ValueError) for name in ("start", "share")),
        ("start", 0.0, ValueError),
        ("share", -0.1, ValueError),
        ("share", "all", TypeError),
        ("rise", 0.0, ValueError),
        ("period", 0, ValueError),
        ("period", 2.5, TypeError),
        ("order", 4, ValueError),
        ("velocity_cap", 0.0, ValueError),
        ("trust", 0.0, ValueError),
        ("trust", float("nan"), ValueError),
        ("trust", "1", TypeError),
        ("window", 0, ValueError),
        ("window", 2, ValueError),
        ("window", 1.5, TypeError),
        ("warmup", -1, ValueError),
        ("clip", 1, TypeError),
        ("smoothing", "0.5", TypeError),
    ],
)
def test_bad_arguments_are_refused(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Invalid {argument}: "):
        StepSizes(**{argument: value})


def test_partition_groups_by_name_rank_or_labels() -> None:
    names, ranks = ["a.0.weight", "a.0.bias", "a.1.weight", "b"], [2, 1, 2, 0]
    assert partition(names, ranks) == ([0, 1, 2, 3], names)
    assert partition(names, ranks, "one") == ([0, 0, 0, 0], ["all"])
    assert partition(names, ranks, "kind") == ([0, 1, 0, 1], ["weights", "biases"])
    assert partition(names, ranks, "layer") == ([0, 0, 1, 2], ["a.0", "a.1", "b"])
    assert partition(["d/kernel", "d/bias"], [2, 1], "layer") == ([0, 0], ["d"])
    assert partition(names, ranks, lambda name: name[0]) == ([0, 0, 0, 1], ["a", "b"])
    assert partition(names, ranks, [7, 8, 7, 8]) == ([0, 1, 0, 1], ["7", "8"])


@pytest.mark.parametrize(
    ("theta", "u", "step", "expected"),
    [
        ([2.0, -2.0], [1.0, 7.0], 0.03, 0.03),  # root mean squares 2 and 5: at most 0.1 * 2 / 5
        ([2.0, -2.0], [1.0, 7.0], 0.3, 0.04),
        ([2.0, -2.0], [1.0, 7.0], -0.3, -0.04),
        ([2.0, -2.0], [1.0, 7.0], 0.0, 0.0),
        ([0.0, 0.0], [1.0, 7.0], 0.3, 0.1 * 1e-3 / 5),  # what begins at 0 moves
        ([2e30, -2e30], [1e30, 7e30], 0.3, 0.04),  # squares of float32 overflow
        ([2.0, -2.0], [0.0, 0.0], 0.1, 0.1),
    ],
)
def test_trust_limits_the_length_of_a_step(theta: list[float], u: list[float], step: float, expected: float) -> None:
    narrow, along = np.asarray(theta, np.float32), np.asarray(u, np.float32)
    for given in (step, np.asarray(step, np.float32)):
        assert float(trusted_step(given, along, narrow, 0.1, np)) == pytest.approx(expected, rel=1e-6)
        assert trusted_step(given, along, narrow, float("inf"), np) is given
        assert trusted_step(given, along[:0], narrow[:0], 0.1, np) is given


def test_the_velocity_takes_the_capped_step() -> None:
    inna = INNA(alpha=0.5, beta=0.1)
    theta, g = np.asarray([1.0]), np.asarray([2.0])
    state = inna.init(theta)._replace(velocity=np.asarray([3.0]))
    for step, capped in ((0.01, 0.01), (0.2, 0.05)):
        got = next_state(inna, g, state, theta, step, 0.5, np)
        assert got == inna.update(g, state, theta, capped)[1]
    assert np.array_equal(direction(inna, g, state, theta), 0.1 * g - state.velocity)
