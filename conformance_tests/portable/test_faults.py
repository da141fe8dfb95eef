"""Gradients that are not finite, changes between steps, step sizes that jump, counters at their end, many steps."""

import sys
from typing import Any

import numpy as np
import pytest

import inna_core
from inna_core.weight_decay import update_with_decay

ALGORITHMS = {"INNA": (0.1, {"alpha": 0.5, "beta": 0.1}), "INNAprop": (0.02, {"alpha": 0.1, "beta": 0.9})}
EACH = pytest.mark.parametrize("name", ALGORITHMS)
BAD = pytest.mark.parametrize("bad", [np.nan, np.inf])


def gradient(k: int) -> np.ndarray:
    return np.random.default_rng(k).standard_normal(4)


# torch


def torch_run(name: str, **options: Any) -> tuple[Any, Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import inna_torch

    lr, hyper = ALGORITHMS[name]
    p = torch.nn.Parameter(torch.from_numpy(gradient(100)))
    return p, getattr(inna_torch, name)([p], lr=lr, **hyper, **options)


def torch_step(p: Any, optimizer: Any, g: np.ndarray) -> None:
    import torch

    p.grad = torch.from_numpy(g.copy())
    optimizer.step()


# optax


@EACH
@BAD
def test_apply_if_finite_skips_gradients_that_are_not_finite(name: str, bad: float) -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    import jax
    import jax.numpy as jnp

    import inna_optax

    lr, hyper = ALGORITHMS[name]
    plain = getattr(inna_optax, name.lower())(lr, **hyper)
    wrapped = optax.apply_if_finite(plain, max_consecutive_errors=5)
    params = jnp.asarray(gradient(100))
    state, own = wrapped.init(params), plain.init(params)
    wanted = params
    for k, factor in enumerate((1.0, bad, 1.0)):
        g = jnp.asarray(gradient(k) * factor)
        updates, state = wrapped.update(g, state, params)
        params = optax.apply_updates(params, updates)
        if np.isfinite(factor):
            updates, own = plain.update(g, own, wanted)
            wanted = optax.apply_updates(wanted, updates)
    np.testing.assert_allclose(params, wanted, rtol=1e-14)
    for x, y in zip(*map(jax.tree.leaves, (state.inner_state, own)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-14)  # the wrapper compiles the step
    # without the wrapper the element is lost
    updates, _ = plain.update(jnp.asarray([bad, 1.0, 1.0, 1.0]), plain.init(params), params)
    assert np.isfinite(updates).tolist() == [False, True, True, True]


@EACH
def test_the_counter_of_optax_stays_at_its_end(name: str) -> None:
    pytest.importorskip("optax", reason="optax is not installed")
    import jax.numpy as jnp

    import inna_optax

    lr, hyper = ALGORITHMS[name]
    transform = getattr(inna_optax, name.lower())(lr, **hyper)
    params = jnp.asarray(gradient(0))
    end = jnp.iinfo(jnp.int32).max
    state = transform.init(params)._replace(step=jnp.asarray(end, jnp.int32))
    updates, state = transform.update(params, state, params)
    assert int(state.step) == end
    assert np.isfinite(updates).all()


# the core and torch: equations in the test


def reference_step(name: str, g: Any, theta: Any, v: Any, s: Any, k: int, lr: float, decay: float) -> tuple[Any, ...]:
    """One step as the papers have it, in terms of the velocity."""
    _, hyper = ALGORITHMS[name]
    alpha, beta, sigma, eps = hyper["alpha"], hyper["beta"], 0.999, 1e-8
    q = g
    if name == "INNAprop":
        s = sigma * s + (1 - sigma) * g**2
        q = g / (np.sqrt(s / (1 - sigma ** (k + 1))) + eps)
    new = theta - lr * decay * theta + lr * (v - beta * q)
    return new, (1 - alpha * lr) * v - lr * (1 - alpha * beta) * q, s


@EACH
def test_step_sizes_may_jump_to_zero_and_to_beta(name: str) -> None:
    """In torch on the default path, whose kernel keeps the velocity times a factor that follows the step size."""
    lr, hyper = ALGORITHMS[name]
    p, optimizer = torch_run(name, weight_decay=0.1)
    theta, v, s = gradient(100), np.zeros(4), np.zeros(4)
    for k, now in enumerate([lr, 0.0, lr, hyper["beta"], 0.0, hyper["beta"], 2 * hyper["beta"], 1e-300, lr]):
        optimizer.param_groups[0]["lr"] = now
        torch_step(p, optimizer, gradient(k))
        theta, v, s = reference_step(name, gradient(k), theta, v, s, k, now, 0.1)
        np.testing.assert_allclose(p.detach(), theta, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(optimizer.state[p]["velocity"], v, rtol=1e-12, atol=1e-13)


@EACH
def test_parameters_changed_between_steps_move_nothing_else(name: str) -> None:
    """Weights that are loaded, averaged or constrained from outside leave the velocity alone."""
    p, optimizer = torch_run(name, weight_decay=0.0)
    lr, _ = ALGORITHMS[name]
    theta, v, s = gradient(100), np.zeros(4), np.zeros(4)
    for k in range(8):
        if k % 3 == 1:
            p.data.mul_(0.5).add_(1.0)
            theta = 0.5 * theta + 1.0
        torch_step(p, optimizer, gradient(k))
        theta, v, s = reference_step(name, gradient(k), theta, v, s, k, lr, 0.0)
    np.testing.assert_allclose(p.detach(), theta, rtol=1e-13)
    np.testing.assert_allclose(optimizer.state[p]["velocity"], v, rtol=1e-13)


@pytest.mark.parametrize(("dtype", "counted"), [("float32", 2**24), ("float64", 2**24 + 3)])
def test_steps_beyond_what_a_counter_can_count_follow_the_equations(dtype: str, counted: int) -> None:
    """A counter in float32 stays at 2^24: the bias correction is 1 by then."""
    algorithm = inna_core.INNAprop()
    theta = np.ones(3, dtype)
    state = algorithm.init(theta)._replace(step=np.asarray(2.0**24, dtype), second_moment=np.ones(3, dtype))
    want, v, s = np.ones(3), np.zeros(3), np.ones(3)
    for k in range(2**24, 2**24 + 3):
        delta, state = algorithm.update(theta, state, theta, 0.1)
        want, v, s = reference_step("INNAprop", theta.astype(float), want, v, s, k, 0.1, 0.0)
        theta = theta + delta
    assert float(state.step) == counted
    np.testing.assert_allclose(theta, want, rtol=8 * float(np.finfo(dtype).eps))


def test_dampings_may_change_in_the_middle_of_a_run() -> None:
    """The state does not depend on them: two halves with other dampings are two runs, the second from a given state."""
    theta, state = np.ones(3), inna_core.INNA().init(np.ones(3))
    for _ in range(3):
        delta, state = update_with_decay(inna_core.INNA(0.5, 0.1), theta, state, theta, 0.1, 0.0)
        theta = theta + delta
    v = state.velocity
    delta, state = update_with_decay(inna_core.INNA(0.2, 0.3), theta, state, theta, 0.1, 0.0)
    np.testing.assert_allclose(delta, 0.1 * (v - 0.3 * theta), rtol=1e-14)
    np.testing.assert_allclose(state.velocity, (1 - 0.02) * v - 0.1 * (1 - 0.06) * theta, rtol=1e-14)


@pytest.mark.nightly
@EACH
def test_a_million_steps_stay_on_the_trajectory_and_keep_no_memory(name: str) -> None:
    """A quadratic with noise that repeats, beside the equations."""
    lr, hyper = ALGORITHMS[name]
    algorithm = getattr(inna_core, name)(**hyper)
    curvature, noise = np.asarray([0.5, 1.0, 2.0]), np.random.default_rng(0).standard_normal((64, 3))
    theta, state = np.ones(3), algorithm.init(np.ones(3))
    reference, v, s = np.ones(3), np.zeros(3), np.zeros(3)
    lr = lr / 10
    blocks = []
    for k in range(10**6):
        g = curvature * theta + noise[k % 64]
        delta, state = algorithm.update(g, state, theta, lr)
        theta = theta + delta
        g = curvature * reference + noise[k % 64]
        reference, v, s = reference_step(name, g, reference, v, s, k, lr, 0.0)
        if k in (1000, 10**6 - 1):
            blocks.append(sys.getallocatedblocks())
    assert np.isfinite(theta).all()
    np.testing.assert_allclose(theta, reference, rtol=1e-9, atol=1e-9)
    assert blocks[1] - blocks[0] < 1000
