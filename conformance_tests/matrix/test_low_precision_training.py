"""A small network trained in bfloat16, parameters and all, reaches the accuracy of float32."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance_tests.packages import skip_without

pytestmark = pytest.mark.nightly

SEEDS, EPOCHS, BATCH, TRAINING = (0, 1, 2), 15, 32, 1344
LR = {"INNA": 0.1, "INNAprop": 2e-3}


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = (data.data - data.data.mean()) / data.data.std()
    return x[order].astype("float32"), data.target[order]


def start(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((64, 32)) / 8, np.zeros(32), rng.standard_normal((32, 10)) / 6, np.zeros(10)]


def batches(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(TRAINING).reshape(-1, BATCH) for _ in range(EPOCHS)])


def train_torch(algorithm: str, dtype: str, seed: int) -> float:
    import torch

    import inna_torch

    x, y = digits()
    inputs, labels = torch.tensor(x, dtype=getattr(torch, dtype)), torch.tensor(y)
    params = [torch.nn.Parameter(torch.tensor(p, dtype=inputs.dtype)) for p in start(seed)]
    w1, b1, w2, b2 = params
    optimizer = getattr(inna_torch, algorithm)(params, lr=LR[algorithm])

    def logits(batch: Any) -> torch.Tensor:
        return torch.nn.functional.silu(batch @ w1 + b1) @ w2 + b2

    for rows in torch.tensor(batches(seed)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return float((logits(inputs[TRAINING:]).argmax(1) == labels[TRAINING:]).float().mean())


def train_optax(algorithm: str, dtype: str, seed: int) -> float:
    import jax
    import jax.numpy as jnp
    import optax

    import inna_optax

    x, y = digits()
    inputs, labels = jnp.asarray(x, dtype), jnp.asarray(y)
    params = [jnp.asarray(p, dtype) for p in start(seed)]
    optimizer = getattr(inna_optax, algorithm.lower())(LR[algorithm])

    def logits(params: Any, batch: Any) -> Any:
        w1, b1, w2, b2 = params
        return jax.nn.silu(batch @ w1 + b1) @ w2 + b2

    def loss(params: Any, rows: Any) -> Any:
        wide = logits(params, inputs[rows]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(wide, labels[rows]).mean()

    def step(carry: Any, rows: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.asarray(batches(seed))))(
        (params, optimizer.init(params))
    )
    return float((logits(params, inputs[TRAINING:]).argmax(1) == labels[TRAINING:]).mean())


HOSTS = {"torch": ("torch", train_torch), "jax": ("optax", train_optax)}


@pytest.mark.parametrize("algorithm", LR)
@pytest.mark.parametrize("host", HOSTS)
def test_bfloat16_reaches_the_accuracy_of_float32(host: str, algorithm: str) -> None:
    """Within half a point of test accuracy, in the mean of three seeds."""
    package, train = HOSTS[host]
    skip_without(package, "sklearn")
    low, full = (np.mean([train(algorithm, dtype, seed) for seed in SEEDS]) for dtype in ("bfloat16", "float32"))
    assert full > 0.95
    assert low >= full - 0.005
