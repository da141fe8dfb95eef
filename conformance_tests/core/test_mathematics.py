"""What docs/mathematics.md derives, in numbers."""

import numpy as np
import pytest

from inna_core import INNA
from inna_core.dynamics import energy, largest_stable_lr
from inna_core.weight_decay import update_with_decay

pytestmark = pytest.mark.fast

SETTINGS = np.random.default_rng(0).uniform(np.log(0.05), np.log(20.0), (1000, 3))
"""Logarithms of alpha, beta and the largest curvature."""


def largest_radius(inna: INNA, lr: float, largest: float) -> float:
    """Return the spectral radius of a step of theta and velocity, as `INNA.update` makes it, over five curvatures."""
    curvatures = largest * np.asarray([1.0, 0.5, 0.1, 1e-2, 1e-3])
    theta, velocity = np.tile([1.0, 0.0], (5, 1)), np.tile([0.0, 1.0], (5, 1))
    delta, state = inna.update(curvatures[:, None] * theta, inna.init(theta)._replace(velocity=velocity), theta, lr)
    steps = np.stack([theta + delta, state.velocity], axis=1)
    return float(np.abs(np.linalg.eigvals(steps)).max())


@pytest.mark.parametrize("form", ["dampings", "momentum and lead"])
def test_stable_below_the_limit_and_not_above(form: str) -> None:
    for first, second, largest in np.exp(SETTINGS):
        given = {"alpha": first, "beta": second}
        if form == "momentum and lead":
            given = {"momentum": first / 20, "lead": second / 4}
        inna, limit = INNA(**given), largest_stable_lr(largest, **given)
        assert largest_radius(inna, 0.999 * limit, largest) < 1
        assert largest_radius(inna, 1.001 * limit, largest) > 1


QUADRATIC = np.diag([0.1, 1.0, 10.0])


def loss(theta: np.ndarray) -> float:
    return float(theta @ QUADRATIC @ theta / 2 + np.sum(theta**4) / 4)


def gradient(theta: np.ndarray) -> np.ndarray:
    return QUADRATIC @ theta + theta**3


def motion(z: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Return the derivative of (theta, v): the equation of motion, of first order."""
    theta, v = z
    return np.stack([v - beta * gradient(theta), -alpha * v - (1 - alpha * beta) * gradient(theta)])


def runge_kutta(z: np.ndarray, h: float, alpha: float, beta: float) -> np.ndarray:
    a = motion(z, alpha, beta)
    b = motion(z + h / 2 * a, alpha, beta)
    c = motion(z + h / 2 * b, alpha, beta)
    d = motion(z + h * c, alpha, beta)
    return z + h / 6 * (a + 2 * b + 2 * c + d)


DAMPINGS = [(0.5, 0.01), (0.5, 0.1), (1.3, 0.1), (0.1, 0.9), (2.0, 2.0)]


@pytest.mark.parametrize(("alpha", "beta"), DAMPINGS)
def test_the_first_order_equations_are_the_equation_of_motion(alpha: float, beta: float) -> None:
    """theta'' + alpha theta' + beta Hess J theta' + grad J = 0, with difference quotients of the flow."""
    h = 1e-4
    z = np.asarray([[1.0, -0.5, 0.3], [0.2, 0.4, -0.1]])
    behind, ahead = runge_kutta(z, -h, alpha, beta)[0], runge_kutta(z, h, alpha, beta)[0]
    speed, acceleration = (ahead - behind) / (2 * h), (ahead - 2 * z[0] + behind) / h**2
    hessian = QUADRATIC + np.diag(3 * z[0] ** 2)
    terms = [acceleration, alpha * speed, beta * hessian @ speed, gradient(z[0])]
    assert np.abs(sum(terms)).max() < 1e-4 * np.abs(terms).max()


@pytest.mark.parametrize(("alpha", "beta"), DAMPINGS)
def test_friction_takes_the_energy(alpha: float, beta: float) -> None:
    """E' = -2 alpha |theta'|^2 - 2 beta |grad J|^2, with a difference quotient of E."""
    h = 2e-3
    z = np.asarray([[1.0, -2.0, 0.3], [0.5, 1.0, -3.0]])
    for _ in range(500):
        theta, v = z
        ahead, behind = runge_kutta(z, h, alpha, beta), runge_kutta(z, -h, alpha, beta)
        e = [float(energy(loss(x), [w], alpha=alpha, beta=beta)) for x, w in (behind, z, ahead)]
        g = gradient(theta)
        expected = -2 * alpha * np.sum((v - beta * g) ** 2) - 2 * beta * np.sum(g**2)
        assert abs((e[2] - e[0]) / (2 * h) - expected) < 1e-2 * abs(expected) + 1e-9
        assert e[2] <= e[1] <= e[0]
        z = ahead


@pytest.mark.parametrize(("lead", "nesterov"), [(1.0, False), (1.9, True)])
def test_two_leads_are_the_heavy_ball_and_nesterovs_momentum(lead: float, nesterov: bool) -> None:
    lr, momentum = 0.05, 0.9
    inna = INNA(momentum=momentum, lead=lead)
    theta = other = np.asarray([1.0, -0.5, 0.3])
    state, buffer = inna.init(theta), np.zeros(3)
    for _ in range(100):
        delta, state = inna.update(gradient(theta), state, theta, lr)
        theta = theta + delta
        g = gradient(other)
        buffer = momentum * buffer + g
        other = other - lr * (g + momentum * buffer if nesterov else buffer)
        np.testing.assert_allclose(theta, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("alpha", "beta"), DAMPINGS)
def test_one_published_decay_adds_up_to_1_over_alpha_beta_of_it(alpha: float, beta: float) -> None:
    inna, theta, lr, rate = INNA(alpha, beta), np.asarray([1.0]), 0.1, 0.01
    state, moved = inna.init(theta), np.zeros(1)
    for k in range(int(40 / (alpha * lr))):
        decay = rate if k == 0 else 0.0
        delta, state = update_with_decay(inna, np.zeros(1), state, theta + moved, lr, decay, published=True)
        moved = moved + delta
    np.testing.assert_allclose(moved, -lr * rate / (alpha * beta), rtol=1e-10)
