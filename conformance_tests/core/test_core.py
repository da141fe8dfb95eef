"""Properties of `inna_core` that no host is needed for: psi conversion, momentum and lead, schedules, misuse."""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import inna_core
from conformance_tests import oracle
from conformance_tests.matrix.cases import EPS, random_arrays
from conformance_tests.matrix.table import BY_NAME
from inna_core import schedules
from inna_core.newton.controller import checked_algorithm
from inna_core.psi import psi_from_velocity, velocity_from_psi
from inna_core.weight_decay import update_with_decay

pytestmark = pytest.mark.fast

DAMPINGS = [(0.5, 0.1), (0.0, 1.0), (2.0, 2.0), (0.1, 0.9), (10.0, 0.1)]


@pytest.mark.parametrize(("alpha", "beta"), DAMPINGS)
def test_psi_conversion_equals_its_definition(alpha: float, beta: float) -> None:
    theta, v = random_arrays(0, ((50,), (50,)))
    a, b = oracle.mpmath.mpf(alpha), oracle.mpmath.mpf(beta)
    psi = psi_from_velocity(v, theta, alpha=alpha, beta=beta)
    want = oracle.psi_of(oracle.exact(theta), oracle.exact(v), a, b)
    assert oracle.largest(oracle.exact(psi) - want) <= 1e-15 * (1 + alpha * beta + beta) * 4
    back = velocity_from_psi(psi, theta, alpha=alpha, beta=beta)
    assert np.abs(back - v).max() <= 1e-15 * (1 / beta + alpha + 1) * 8


def test_the_papers_start_is_zero_velocity() -> None:
    theta = random_arrays(0, ((50,),))[0]
    psi_0 = (1 - 0.5 * 0.1) * theta
    v = velocity_from_psi(psi_0, theta, alpha=0.5, beta=0.1)
    assert np.abs(v).max() < 1e-14
    assert np.array_equal(inna_core.INNA(0.5, 0.1).init(theta).velocity, np.zeros(50))


@pytest.mark.parametrize("convert", [psi_from_velocity, velocity_from_psi])
def test_psi_conversion_refuses_what_does_not_fit(convert: Any) -> None:
    x = np.ones(3)
    for arguments, hyper, error in [
        ((np.ones(2), x), (0.5, 0.1), ValueError),
        ((x.astype("float32"), x), (0.5, 0.1), TypeError),
        ((x, x), (-1.0, 0.1), ValueError),
        ((x, x), (0.5, 0.0), ValueError),
        ((x, x.astype(int)), (0.5, 0.1), TypeError),
    ]:
        with pytest.raises(error, match="Invalid"):
            convert(*arguments, alpha=hyper[0], beta=hyper[1])


def test_psi_of_a_run_with_momentum_follows_from_its_coefficients() -> None:
    """Two steps, psi in between, against the paper's recurrence with the alpha and beta of the step size."""
    inna, theta, grads = inna_core.INNA(momentum=0.75, lead=2.0), np.asarray([1.0, -2.0]), np.asarray([[3.0, 1.0]] * 2)
    lr = 0.04
    by, state, psi_theta = inna.coefficients(lr), inna.init(theta), theta
    assert by == pytest.approx((0.2, 0.4, 0.25, 0.5), rel=1e-12)
    psi = psi_from_velocity(state.velocity, theta, alpha=by.alpha, beta=by.beta)
    for g in grads:
        delta, state = inna.update(g, state, theta, lr)
        theta = theta + delta
        common = (1 / 0.4 - 1.25) * psi_theta - psi / 0.4
        psi_theta, psi = psi_theta + 0.2 * (common - 0.4 * g), psi + 0.2 * common
    assert np.allclose(theta, psi_theta, rtol=1e-14, atol=0)
    assert np.allclose(psi_from_velocity(state.velocity, theta, alpha=by.alpha, beta=by.beta), psi, rtol=1e-13, atol=0)


@pytest.mark.parametrize("lead", [0.5, 1.0, 1.75, 3.0])
def test_the_lead_weighs_the_change_of_the_gradient(lead: float) -> None:
    m, eta, grads = 0.75, 0.04, random_arrays(0, ((6,),) * 12)
    inna, theta = inna_core.INNA(momentum=m, lead=lead), np.zeros(6)
    state, steps = inna.init(theta), []
    for g in grads:
        delta, state = inna.update(g, state, theta, eta)
        steps.append(delta)
    assert np.allclose(steps[0], -lead * eta * grads[0], rtol=1e-14, atol=0)
    for k in range(11):
        want = m * steps[k] - eta * grads[k + 1] - (lead - 1) * eta * (grads[k + 1] - grads[k])
        assert np.allclose(steps[k + 1], want, rtol=0, atol=1e-15)


@pytest.mark.parametrize("lead", [0.5, 1.0, 3.0, 4.0, 6.0])
def test_a_constant_lr_makes_quasi_hyperbolic_momentum(lead: float) -> None:
    """Against QHM as Ma and Yarats print it, with nu and lr as `inna_core.coefficients` converts them."""
    m, eta, grads = 0.75, 0.05, random_arrays(0, ((6,),) * 30)
    nu, lr = (1 - (1 - m) * lead) / m, eta / (1 - m)
    inna, theta, other, average = inna_core.INNA(momentum=m, lead=lead), np.zeros(6), np.zeros(6), np.zeros(6)
    state = inna.init(theta)
    for g in grads:
        delta, state = inna.update(g, state, theta, eta)
        theta, average = theta + delta, m * average + (1 - m) * g
        other = other - lr * ((1 - nu) * g + nu * average)
    assert np.allclose(theta, other, rtol=0, atol=1e-14)  # 30 rounded steps of size 1


def test_newton_steps_refuse_a_direction_given_by_momentum() -> None:
    with pytest.raises(ValueError, match="Invalid algorithm: INNA"):
        checked_algorithm(inna_core.INNA(momentum=0.9))


def test_power_decay_is_its_formula_and_refuses_other_numbers() -> None:
    schedule = schedules.PowerDecay(0.2, 1 / 4)
    assert [schedule(k) for k in (0, 15, 80)] == pytest.approx([0.2, 0.1, 0.2 / 3], rel=1e-12)
    for arguments in [(0.0, 0.5), (0.1, -1.0), (float("nan"), 0.5)]:
        with pytest.raises(ValueError, match=r"Invalid (lr|q)"):
            schedules.PowerDecay(*arguments)


def test_update_refuses_a_state_or_scalar_of_another_kind() -> None:
    x = np.ones(3, dtype="float32")
    inna = inna_core.INNA()
    state = inna.init(x)
    with pytest.raises(TypeError, match="Invalid state: tuple"):
        inna.update(x, (x,), x, 0.1)  # type: ignore[arg-type]
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    y = strict.ones(3, dtype=strict.float32)
    with pytest.raises(TypeError, match=r"Invalid lr: a 0-d array of dtype .*float64"):
        inna.update(y, inna.init(y), y, strict.asarray(0.1, dtype=strict.float64))
    with pytest.raises(TypeError, match="Invalid theta"):
        inna.init([1.0])
    with pytest.raises(TypeError, match="Invalid grad"):
        inna.update([1.0, 1.0, 1.0], state, x, 0.1)
    with pytest.raises(ValueError, match=r"Invalid state.velocity: shape \(2,\)"):
        inna.update(x, inna_core.INNAState(x[:2]), x, 0.1)


@pytest.mark.parametrize("number", [np.float64, np.asarray, np.float32, Fraction])
@pytest.mark.parametrize("shape", [(3,), ()])
def test_numbers_of_other_kinds_do_not_promote(number: Any, shape: Any) -> None:
    x = np.ones(shape, dtype="float32")
    inna = inna_core.INNA(number(0.5), number(0.125))
    for decay, published in ((0.0, False), (number(0.25), False), (number(0.25), True)):
        delta, state = update_with_decay(inna, x, inna.init(x), x, number(0.125), decay, published=published)
        for result in (delta, state.velocity):
            assert (type(result), result.dtype, result.shape) == (np.ndarray, "float32", shape)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_innaprop_takes_scalars_of_the_parameters_dtype(dtype: str) -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    # float16 lies outside the standard
    xp, x = (np, np.ones(3, dtype)) if dtype == "float16" else (strict, strict.ones(3, dtype=getattr(strict, dtype)))
    scalars = [xp.asarray(s, dtype=x.dtype) for s in (0.1, 0.9, 0.99, 1e-4, 0.01)]
    innaprop = inna_core.INNAprop(*scalars[:4])
    delta, state = innaprop.update(x, innaprop.init(x), x, scalars[4])
    plain = inna_core.INNAprop(*(float(s) for s in scalars[:4]))
    want, _ = plain.update(x, plain.init(x), x, float(scalars[4]))
    assert delta.dtype == state.second_moment.dtype == x.dtype
    np.testing.assert_allclose(np.asarray(delta), np.asarray(want), rtol=4 * EPS[dtype])
    with pytest.raises(TypeError, match=r"Invalid state\.step: dtype"):
        innaprop.update(x, state._replace(step=xp.asarray(1)), x, 0.01)


@pytest.mark.parametrize("bad", [np.True_, np.asarray("a"), np.complex128(1j), np.asarray(1), np.asarray([0.1])])
def test_other_kinds_of_scalars_are_refused(bad: Any) -> None:
    x = np.ones(3)
    with pytest.raises(TypeError, match="Invalid alpha"):
        inna_core.INNA(alpha=bad)
    with pytest.raises(TypeError, match="Invalid weight_decay"):
        update_with_decay(inna_core.INNA(), x, inna_core.INNA().init(x), x, 0.1, bad)


@pytest.mark.parametrize("bad", [np.asarray(np.nan), np.float32(-1), 10**400, -(10**400), Fraction(-1, 3)])
def test_numbers_out_of_range_are_refused_whatever_their_kind(bad: Any) -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match="Invalid beta"):
        inna_core.INNA(beta=bad)
    for lr, decay, name in ((bad, 0.1, "lr"), (0.1, bad, "weight_decay")):
        with pytest.raises(ValueError, match=f"Invalid {name}"):
            update_with_decay(inna_core.INNA(), x, inna_core.INNA().init(x), x, lr, decay)


def test_two_frameworks_do_not_mix() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    x, y = np.ones(3), strict.ones(3, dtype=strict.float64)
    inna = inna_core.INNA()
    with pytest.raises(TypeError, match="Multiple namespaces"):
        inna.update(y, inna.init(x), x, 0.1)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None, True])
@pytest.mark.parametrize("algorithm", [getattr(inna_core, name)() for name in BY_NAME], ids=BY_NAME)
def test_an_update_refuses_lr_itself(algorithm: Any, bad: Any) -> None:
    """Not only through `update_with_decay`, which the hosts call and which looks first."""
    x = np.ones(3)
    with pytest.raises((ValueError, TypeError), match=rf"Invalid lr: {re.escape(repr(bad))}"):
        algorithm.update(x, algorithm.init(x), x, bad)


def psi_loop(theta: np.ndarray, grads: list[np.ndarray], lr: float, decay: float, way: str) -> np.ndarray:
    """The loops of the authors' two INNA files for torch, which differ in their weight decay."""
    alpha, beta = 0.5, 0.1
    psi = (1 - alpha * beta) * theta
    for g in grads:
        if way == "published":  # github.com/innaprop/innaprop
            theta = theta * (1 - lr * decay)
        phase = (alpha - 1 / beta) * theta + psi / beta
        psi = psi - lr * phase
        push = phase + beta * g
        if way == "L2":  # github.com/camcastera/INNA-for-DeepLearning
            push = push + decay * theta
        theta = theta - lr * push
    return theta


@pytest.mark.parametrize("way", ["published", "L2"])
def test_the_authors_decays_are_the_documented_formulas(way: str) -> None:
    lr, decay, inna = 0.05, 0.3, inna_core.INNA(0.5, 0.1)
    theta, *grads = random_arrays(0, ((50,),) * 201)
    want = psi_loop(theta, grads, lr, decay, way)
    state = inna.init(theta)
    for g in grads:
        if way == "published":
            delta, state = update_with_decay(inna, g, state, theta, lr, decay, published=True)
        else:
            delta, state = inna.update(g + decay / inna.beta * theta, state, theta, lr)
        theta = theta + delta
    assert np.max(np.abs(theta - want)) <= 1e-13 * np.max(np.abs(want))
    # the three ways are three trajectories
    others = [psi_loop(random_arrays(0, ((50,),))[0], grads, lr, decay, other) for other in ("published", "L2", "none")]
    assert sum(np.allclose(want, other, rtol=1e-3) for other in others) == 1


@pytest.mark.parametrize("algorithm", [getattr(inna_core, name)() for name in BY_NAME], ids=BY_NAME)
def test_a_phase_that_turns_gradients_turns_the_trajectory(algorithm: Any) -> None:
    """Multiplication by i is exact; a real problem stays real, to the rounding of the modulus."""

    def run(turn: complex, kind: Any) -> np.ndarray:
        theta = turn * random_arrays(0, ((50,),))[0].astype(kind)
        state = algorithm.init(theta)
        for k in range(5):
            g = turn * random_arrays(k + 1, ((50,),))[0]
            delta, state = update_with_decay(algorithm, g.astype(kind), state, theta, 0.01, 0.1)
            theta = theta + delta
        return theta

    assert np.array_equal(run(1j, complex), 1j * run(1, complex))
    assert np.allclose(run(1, complex), run(1, float), rtol=1e-14, atol=1e-15)
