"""Time steps with and without a monitor.

    OMP_NUM_THREADS=1 python -m benchmarks.monitor_cost

Unmonitored and monitored runs take turns, and each step is timed alone, in CPU time, which other programs disturb less
than wall time. A monitored run samples each `SAMPLED_EVERY` steps, so that there are enough samples. A sample costs
what a step with one takes more than the others, in the median, and the ratio is 1 + cost / (every * step).
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import inna_optax
import inna_torch

SAMPLED_EVERY = 10
BATCH = 64
NEVER = 10**6 * SAMPLED_EVERY
MEASURES = ("unmonitored", "velocity", "energy", "sharpness", "sharpness, 1/4 batch")


def mlp() -> torch.nn.Module:
    layers = [torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(128, 10))


def lenet() -> torch.nn.Module:
    features = [torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    features += [torch.nn.Conv2d(6, 16, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()]
    return torch.nn.Sequential(
        *features, torch.nn.Linear(400, 120), torch.nn.ReLU(), torch.nn.Linear(120, 84), torch.nn.ReLU(),
        torch.nn.Linear(84, 10),
    )  # fmt: skip


def torch_step(network: Callable[[], torch.nn.Module], measure: str) -> Callable[[], None]:
    torch.manual_seed(0)
    model, x, y = network(), torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    optimizer = inna_torch.INNAprop(model.parameters(), lr=1e-4, betas=(0.9, 0.999))
    rows = BATCH // 4 if "1/4" in measure else BATCH

    def loss(rows: int = BATCH) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x[:rows]), y[:rows])

    if measure != "unmonitored":
        given: Any = () if measure == "velocity" else (model, lambda: loss(rows))
        period = SAMPLED_EVERY if "sharpness" in measure else NEVER
        inna_torch.Monitor(optimizer, *given, every=SAMPLED_EVERY, sharpness_every=period)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def optax_step(measure: str) -> Callable[[], None]:
    sizes = (784, 128, 128, 10)
    keys = jax.random.split(jax.random.key(0), 5)
    params: Any = [
        (jax.random.normal(key, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys, pairwise(sizes), strict=False)
    ]
    x, y = jax.random.normal(keys[3], (BATCH, 784)), jax.random.randint(keys[4], (BATCH,), 0, 10)
    rows = BATCH // 4 if "1/4" in measure else BATCH

    def loss(params: Any, rows: int = BATCH) -> jax.Array:
        z = x[:rows]
        for w, b in params[:-1]:
            z = jax.nn.relu(z @ w + b)
        logits = z @ params[-1][0] + params[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[:rows]).mean()

    transform = inna_optax.innaprop(1e-4, momentum=0.9)
    if measure != "unmonitored":
        period = SAMPLED_EVERY if "sharpness" in measure else NEVER
        transform = inna_optax.monitor(transform, every=SAMPLED_EVERY, sharpness_every=period)
    known = measure in ("energy", "sharpness", "sharpness, 1/4 batch")

    def update(params: Any, state: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(params)
        extra: dict[str, Any] = {"value": value} if known else {}
        if "sharpness" in measure:
            extra["value_fn"] = lambda p: loss(p, rows)
        updates, state = transform.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    jitted: Any = jax.jit(update, donate_argnums=(0, 1))
    carry = [params, transform.init(params)]

    def step() -> None:
        carry[:] = jax.block_until_ready(jitted(*carry))

    return step


RUNS: dict[str, Callable[[str], Callable[[], None]]] = {
    "torch, MLP 784-128-128-10": lambda measure: torch_step(mlp, measure),
    "torch, LeNet-5": lambda measure: torch_step(lenet, measure),
    "optax in jit, MLP 784-128-128-10": optax_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="samples of each row")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, jax {jax.__version__}, batch {BATCH}, INNAprop\n")
    print("| run | measured | ms a step | ms more for a sample | every=100 | every=1000 |\n|---|---|---|---|---|---|")
    for run, make in RUNS.items():
        steps = {measure: make(measure) for measure in MEASURES}
        times: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        for number in range((arguments.rounds + 2) * SAMPLED_EVERY + 1):
            for measure, step in steps.items():
                begin = time.process_time()
                step()
                if number > 2 * SAMPLED_EVERY:  # the first ones compile
                    times[measure].append(time.process_time() - begin)
        for measure in MEASURES:
            by_phase = np.asarray(times[measure]).reshape(-1, SAMPLED_EVERY)
            medians = np.median(by_phase, axis=0)
            sampled = int(medians.argmax())  # torch samples after a step, optax before one
            step = float(np.median(np.delete(by_phase, sampled, axis=1)))
            cost = 0.0 if measure == "unmonitored" else float(medians[sampled]) - step
            ratios = " | ".join(f"{1 + cost / (every * step):.3f}" for every in (100, 1000))
            print(f"| {run} | {measure} | {1e3 * step:.2f} | {1e3 * cost:.2f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
