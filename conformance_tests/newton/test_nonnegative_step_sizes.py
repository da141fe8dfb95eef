"""Step sizes that may not be negative: groups left out, and fixed proportions."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest

from conformance_tests.newton.frameworks import FRAMEWORKS, jax_arrays
from conformance_tests.newton.subproblems import BOUNDED, KINDS, Subproblem, residual, solved, subproblem, value
from inna_core import NewtonStatus, Summary, newton_step_sizes
from inna_core.newton import nonnegative_step_sizes, proportional_step_sizes


def none_negative(p: Subproblem, make: Callable[..., Any] = np.asarray, loop: Any = None) -> Any:
    solve = partial(newton_step_sizes, damping=p.damping, loop=loop)
    return nonnegative_step_sizes(Summary(make(p.gradient), make(p.hessian), make(p.third)), solve, loop)


def proportional(p: Subproblem, make: Callable[..., Any] = np.asarray, **changes: Any) -> Any:
    arrays = (make(p.gradient), make(p.hessian), make(p.third))
    return proportional_step_sizes(*arrays, **{"damping": p.damping, **changes})


def of_groups(p: Subproblem, kept: np.ndarray) -> Subproblem:
    """Return the model of some groups, by their numbers."""
    return Subproblem(p.gradient[kept], p.hessian[np.ix_(kept, kept)], p.third[kept], p.damping)


def without_backward_groups(p: Subproblem) -> np.ndarray:
    """Return the groups that are left when those with negative step sizes are removed until there are none."""
    kept = np.arange(len(p.gradient))
    while len(kept) and np.any(backward := solved(of_groups(p, kept)).eta < 0):
        kept = kept[~backward]
    return kept


@pytest.mark.parametrize("kind", BOUNDED)
def test_groups_that_would_step_backward_stand_still(kind: str) -> None:
    """No step size is negative, and those that are left solve the model of their groups alone."""
    standing = 0
    for seed in range(12):
        p = subproblem(kind, seed)
        eta, radius, status = none_negative(p)
        assert np.isfinite(radius)
        kept = without_backward_groups(p)
        moving = np.isin(np.arange(len(eta)), kept)
        assert np.all(eta[~moving] == 0)
        assert np.all(eta[moving] >= 0)
        assert value(p, eta) <= 0
        standing += len(eta) - len(kept)
        if len(kept) and int(status) in (NewtonStatus.MINIMISER, NewtonStatus.HARD_CASE):
            assert residual(of_groups(p, kept), eta[kept])[0] <= 1e-10
    assert standing > 0


def alone(p: Subproblem, s: int) -> float:
    """Return the positive root of |H_ss| eta + damping/2 |T_s| eta^2 = g_s, 0 where there is none."""
    g, h, t = p.gradient[s], abs(p.hessian[s, s]), p.damping / 2 * abs(p.third[s])
    if g <= 0:
        return 0.0
    with mpmath.workdps(50):
        a, b = mpmath.mpf(t), mpmath.mpf(h)
        root = b + mpmath.sqrt(b * b + 4 * a * mpmath.mpf(g))
        return float(2 * g / root) if root > 0 else 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_proportions_are_those_of_each_group_alone(kind: str) -> None:
    """Ratios from the quadratic equation in 50 digits; no multiple of them has a lower value."""
    for seed in range(20):
        p = subproblem(kind, seed)
        eta, _, status = proportional(p)
        own = np.asarray([alone(p, s) for s in range(len(p.gradient))])
        assert np.all(eta >= 0)
        assert np.all(np.isfinite(eta))
        assert int(status) != NewtonStatus.FAILED, seed
        if not np.any(own):
            assert not np.any(eta)
            continue
        s = int(np.argmax(own))
        tau = eta[s] / own[s]
        assert tau > 0
        assert np.allclose(eta, tau * own, rtol=1e-12, atol=0)
        if int(status) != NewtonStatus.CONVEXIFIED:
            best = value(p, eta)
            assert best < 0
            assert min(value(p, factor * eta) for factor in (0.0, 0.5, 0.999, 1.001, 2.0, 100.0)) >= best * (1 + 1e-12)


@pytest.mark.parametrize("solve", [none_negative, proportional])
@pytest.mark.parametrize("kind", ["definite", "indefinite", "graded", "some zero thirds"])
def test_step_sizes_that_are_not_negative_follow_units_and_order(solve: Callable[..., Any], kind: str) -> None:
    """Each group scaled over six decades, the loss by 1e-9, and the groups in another order."""
    for seed in range(10):
        p = subproblem(kind, 7000 + seed, size=6)
        rng = np.random.default_rng(seed)
        c, order, loss = 10.0 ** rng.uniform(-3, 3, 6), rng.permutation(6), 1e-9
        scaled = (c * p.gradient * loss, p.hessian * c[:, None] * c * loss, c**3 * p.third * loss)
        q = Subproblem(scaled[0][order], scaled[1][np.ix_(order, order)], scaled[2][order], p.damping)
        want = solve(p).eta
        assert np.max(np.abs(c[order] * solve(q).eta - want[order])) <= 1e-9 * np.max(want), seed


@pytest.mark.parametrize("exponent", [30, 300])
def test_extreme_numbers_stay_finite_without_negative_ones(exponent: int) -> None:
    big = 10.0**exponent
    for g in (1 / big, 1.0, big):
        for h in (0.0, 1 / big, big):
            for t in (0.0, 1 / big, big):
                H = h * np.asarray([[1, 0.5], [0.5, -1]])
                p = Subproblem(g * np.asarray([1.0, 2]), H, t * np.asarray([1.0, 2]), 1.0)
                for found in (none_negative(p), proportional(p)):
                    assert np.all(np.isfinite(found.eta))
                    assert np.all(found.eta >= 0)


def test_proportional_step_sizes_report_input_that_is_not_finite() -> None:
    found = proportional(Subproblem(np.asarray([1.0, math.nan]), np.eye(2), np.ones(2), 1.0))
    assert (found.eta.tolist(), int(found.status)) == ([0.0, 0.0], NewtonStatus.FAILED)


@pytest.mark.parametrize("solve", [pytest.param(none_negative, marks=pytest.mark.nightly), proportional])
@pytest.mark.parametrize("name", ["strict", "torch", "jax"])
def test_frameworks_agree_on_step_sizes_that_are_not_negative(name: str, solve: Callable[..., Any]) -> None:
    make, _ = FRAMEWORKS[name]()
    for seed in range(10):
        p = subproblem("definite", seed, 5)
        want, got = solve(p), solve(p, make)
        assert np.allclose(np.asarray(got.eta), want.eta, rtol=1e-9, atol=1e-12 * np.max(want.eta))
        assert int(got.status) == want.status


@pytest.mark.parametrize("solve", [pytest.param(none_negative, marks=pytest.mark.nightly), proportional])
def test_under_jit_the_same_groups_stand_still(solve: Callable[..., Any]) -> None:
    make, _ = jax_arrays()
    import jax

    loops = pytest.importorskip("inna_optax", reason="optax is not installed")
    compiled = jax.jit(lambda g, H, T: solve(Subproblem(g, H, T, 1.0), lambda x: x, loop=loops.while_loop))
    for seed in range(5):
        p = replace(subproblem("indefinite", seed, 5), damping=1.0)
        want = solve(p)
        got = compiled(make(p.gradient), make(p.hessian), make(p.third))
        assert np.allclose(got.eta, want.eta, rtol=1e-9, atol=1e-12 * np.max(want.eta))
