"""INNA in JAX: one jitted step, the step size scheduled inside the optax transformation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.quickstart.problem import DECAY, LR, Problem
from benchmarks.quickstart.recording import Recorder, Trained
from inna_core.schedules import PowerDecay
from inna_optax import inna

NAMES: tuple[str, ...] = ("w1", "b1", "w2", "b2")
Params = dict[str, jax.Array]


def listed(params: Params) -> list[jax.Array]:
    return [params[name] for name in NAMES]


def scores(params: Params, x: jax.Array) -> jax.Array:
    return jax.nn.silu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss_of(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(scores(params, x), y).mean()


def train(option: str, problem: Problem, recorder: Recorder) -> Trained:
    """Train on JAX's default device.

    Args:
        option: unused, since JAX is told through its environment variables.
        problem: data, initial weights and batches.
        recorder: is told every step and epoch.
    """
    del option
    params = dict(zip(NAMES, map(jnp.asarray, problem.weights), strict=True))
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    optimizer = inna(PowerDecay(LR, DECAY))
    state = optimizer.init(params)

    @jax.jit
    def step(params: Params, state: Any, batch: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(params, x[batch], y[batch])
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    for epoch in problem.batches:
        losses = []
        for batch in epoch:
            params, state, loss = step(params, state, batch)
            losses.append(loss)
            recorder.step(partial(listed, params))
        recorder.epoch(sum(losses) / len(losses))
    device = jax.devices()[0]
    return Trained(f"{device.platform}:{device.id}", np.asarray(scores(params, jnp.asarray(problem.x_test))))
