"""Step sizes follow the units of loss, direction and parameters, and the order of groups."""

import numpy as np
import pytest

from conformance_tests.newton.subproblems import KINDS, Subproblem, solved, subproblem
from inna_core import newton_step_sizes

INVARIANT = [kind for kind in KINDS if kind not in ("hard", "no gradient", "zero rows")]


def largest_change(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_the_direction_divides_the_step_sizes(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 3000 + seed, size=6)
        for c in (1e-3, 1.7, 1e3):
            q = Subproblem(c * p.gradient, c**2 * p.hessian, c**3 * p.third, p.damping)
            assert largest_change(c * solved(q).eta, solved(p).eta) <= 1e-9, (seed, c)


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_the_loss_changes_nothing(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 4000 + seed, size=6)
        for c in (1e-9, 1.7, 1e9):
            q = Subproblem(c * p.gradient, c * p.hessian, c * p.third, p.damping)
            assert largest_change(solved(q).eta, solved(p).eta) <= 1e-9, (seed, c)


@pytest.mark.parametrize("kind", INVARIANT)
def test_scaling_each_group_divides_its_step_size(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 5000 + seed, size=6)
        c = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, 6)
        q = Subproblem(c * p.gradient, p.hessian * c[:, None] * c, c**3 * p.third, p.damping)
        assert largest_change(c * solved(q).eta, solved(p).eta) <= 1e-9, seed


@pytest.mark.parametrize("kind", INVARIANT)
def test_the_order_of_groups_does_not_matter(kind: str) -> None:
    for seed in range(20):
        p = subproblem(kind, 6000 + seed, size=6)
        order = np.random.default_rng(seed).permutation(6)
        q = Subproblem(p.gradient[order], p.hessian[np.ix_(order, order)], p.third[order], p.damping)
        assert largest_change(solved(q).eta, solved(p).eta[order]) <= 1e-9, seed


def test_the_trajectory_does_not_depend_on_the_units_of_parameters() -> None:
    """One scalar per group, theta_s = a_s theta~_s over six decades: eta -> eta / a^2, the same iterates."""
    a = np.asarray([1e-3, 1.0, 1e3])

    def descend(unit: np.ndarray) -> np.ndarray:
        # L = (t1^2 + 2 t2^2)/2 + t1 t2 t3 / 9 + t3^4/24 + t3^2
        theta = np.asarray([1.0, 2.0, 3.0]) / unit
        for _ in range(8):
            t1, t2, t3 = theta * unit
            u = np.asarray([t1 + t2 * t3 / 9, 2 * t2 + t1 * t3 / 9, t1 * t2 / 9 + t3**3 / 6 + 2 * t3]) * unit
            H = np.asarray([[1, t3 / 9, t2 / 9], [t3 / 9, 2, t1 / 9], [t2 / 9, t1 / 9, t3**2 / 2 + 2]])
            H = H * unit[:, None] * unit * u[:, None] * u
            T = np.asarray([0, 0, t3]) * unit**3 * u**3
            theta = theta - 0.5 * newton_step_sizes(u * u, H, T, damping=1.0).eta * u
        return theta * unit

    assert largest_change(descend(a), descend(np.ones(3))) <= 1e-9
