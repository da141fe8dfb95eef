"""The network in JAX, its parameters named as in Flax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import inna_optax
from conformance_tests.portable import network
from conformance_tests.portable.network import EPSILON, Arrays, Leg
from inna_core.schedules import PowerDecay

NAMES = {
    "embedding/embeddings": ("embedding", "embedding"),
    "norm/gamma": ("norm", "scale"),
    "norm/beta": ("norm", "bias"),
    **{f"{layer}/{name}": (layer, name) for layer in ("conv", "dense") for name in ("kernel", "bias")},
}


def loss(p: Any, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    x = p["embedding"]["embedding"][tokens]
    z = jax.lax.conv_general_dilated(x, p["conv"]["kernel"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
    z = z + p["conv"]["bias"]
    normal = (z - z.mean(-1, keepdims=True)) * jax.lax.rsqrt(z.var(-1, keepdims=True) + EPSILON)
    u = normal * p["norm"]["scale"] + p["norm"]["bias"]
    h = u * jax.lax.rsqrt(1 + u * u)
    return jnp.mean((h.mean(1) @ p["dense"]["kernel"] + p["dense"]["bias"] - targets) ** 2)


gradient = jax.jit(jax.grad(loss))


def run(leg: Leg) -> Arrays:
    """Run a part of a training; return the parameters at its end."""
    training = leg.training
    hyper = {**training.hyper, "weight_decay": training.weight_decay}
    transform = getattr(inna_optax, training.algorithm.lower())(PowerDecay(training.lr, training.q), **hyper)
    params: Any = {}
    for name, value in network.initial_parameters().items():
        layer, own = NAMES[name]
        params.setdefault(layer, {})[own] = jnp.asarray(value)
    state = transform.init(params)
    if leg.load:
        state, params = inna_optax.load_state(leg.load, state, params, layout=network.layout(leg.source, "optax"))
        assert state.step == leg.first

    @jax.jit
    def step(params: Any, state: Any, tokens: Any, targets: Any) -> tuple[Any, Any]:
        updates, state = transform.update(gradient(params, tokens, targets), state, params)
        return optax.apply_updates(params, updates), state

    for k in range(leg.first, leg.last):
        params, state = step(params, state, *network.batch(k))
    if leg.save:
        inna_optax.save_state(leg.save, state, params, hyperparameters=hyper)
    return {name: np.array(params[layer][own]) for name, (layer, own) in NAMES.items()}
