"""What a summary costs, in gradients, against the number of groups S; and the solver's time against S.

    python benchmarks/newton_cost.py torch        (or jax, tensorflow, solver)

The network is a perceptron of 16 square tanh layers, 32 tensors, that are split evenly into S groups. Gradient and
summary are timed in turn, and the median of their ratios is shown. Memory: for torch the peak resident set of a process
of its own for each S, over that of S = 1.
"""

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]

import numpy as np  # noqa: E402

DEPTH, WIDTH, BATCH, CLASSES = 16, 128, 256, 10
SIZES = (1, 4, 8, 16, 32)


def arrays() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return weights, inputs and labels."""
    rng = np.random.default_rng(0)
    widths = [WIDTH] * DEPTH + [CLASSES]
    weights = []
    for n, m in itertools.pairwise(widths):
        weights += [rng.normal(0, 1 / n**0.5, (n, m)).astype(np.float32), np.zeros(m, np.float32)]
    return weights, rng.normal(0, 1, (BATCH, WIDTH)).astype(np.float32), rng.integers(0, CLASSES, BATCH)


def labels(size: int) -> list[int]:
    """Return the group of each of the 2 DEPTH tensors: neighbours together."""
    return [i * size // (2 * DEPTH) for i in range(2 * DEPTH)]


Pair = tuple[Callable[[], Any], Callable[[], Any]]


def torch_pair(size: int) -> Pair:
    import torch

    import inna_torch

    torch.set_num_threads(1)
    weights, x, y = arrays()
    params = [torch.tensor(w, requires_grad=True) for w in weights]
    inputs, targets = torch.tensor(x), torch.tensor(y)

    def loss(p: list[Any]) -> Any:
        h = inputs
        for i in range(0, len(p) - 2, 2):
            h = torch.tanh(torch.addmm(p[i + 1], h, p[i]))
        return torch.nn.functional.cross_entropy(torch.addmm(p[-1], h, p[-2]), targets)

    direction = torch.autograd.grad(loss(params), params)
    return (
        lambda: torch.autograd.grad(loss(params), params),
        lambda: inna_torch.summary(loss, params, direction, groups=labels(size)),
    )


def jax_pair(size: int) -> Pair:
    import jax
    import jax.numpy as jnp

    import inna_optax

    weights, x, y = arrays()
    params = [jnp.asarray(w) for w in weights]

    def loss(p: list[Any]) -> Any:
        h = jnp.asarray(x)
        for i in range(0, len(p) - 2, 2):
            h = jnp.tanh(h @ p[i] + p[i + 1])
        return -jnp.mean(jax.nn.log_softmax(h @ p[-2] + p[-1])[jnp.arange(BATCH), y])

    gradient = jax.jit(jax.grad(loss))
    direction = gradient(params)
    summary = jax.jit(lambda p, u: inna_optax.summary(loss, p, u, labels(size)))
    return lambda: jax.block_until_ready(gradient(params)), lambda: jax.block_until_ready(summary(params, direction))


def tensorflow_pair(size: int) -> Pair:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    import inna_keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    weights, x, y = arrays()
    stack = [keras.layers.Dense(WIDTH, "tanh") for _ in range(DEPTH - 1)]
    model = keras.Sequential([keras.Input((WIDTH,)), *stack, keras.layers.Dense(CLASSES)])
    model.set_weights(weights)
    inputs, targets = tf.constant(x), tf.constant(y)

    def loss() -> Any:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, model(inputs)))

    @tf.function
    def gradient() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, [v.value for v in model.trainable_variables])

    direction = gradient()
    summary = tf.function(lambda: inna_keras.summary(loss, model, direction, labels(size)))
    return gradient, summary


PAIRS = {"torch": torch_pair, "jax": jax_pair, "tensorflow": tensorflow_pair}


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(host: str, size: int, rounds: int) -> tuple[float, float, float, float]:
    """Return gradients a summary, milliseconds a gradient, seconds of the first call, MiB of the process' peak."""
    gradient, summary = PAIRS[host](size)
    gradient()
    first = seconds(summary)
    times = [(seconds(gradient), seconds(gradient), seconds(summary)) for _ in range(rounds)]
    ratio = statistics.median(2 * s / (a + b) for a, b, s in times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return ratio, 1e3 * statistics.median(min(a, b) for a, b, _ in times), first, peak


def solver(rounds: int) -> None:
    from conformance_tests.newton.subproblems import BOUNDED, subproblem
    from inna_core import newton_step_sizes

    print("| S | median ms | largest ms |\n|---|---|---|")
    for size in (1, 4, 8, 16, 32, 64):
        problems = [subproblem(kind, seed, size) for kind in BOUNDED for seed in range(rounds)]
        times = []
        for p in problems:
            call = lambda p=p: newton_step_sizes(p.gradient, p.hessian, p.third, damping=p.damping)  # noqa: E731
            times.append(1e3 * min(seconds(call) for _ in range(3)))
        print(f"| {size} | {statistics.median(times):.2f} | {max(times):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*PAIRS, "solver"))
    parser.add_argument("--size", type=int, help="measure this S alone, in this process")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.what == "solver":
        solver(arguments.rounds)
    elif arguments.size:
        print(*measure(arguments.what, arguments.size, arguments.rounds))
    else:
        print("| S | summary, in gradients | ms a gradient | first call, s | MiB above S = 1 |\n|---|---|---|---|---|")
        base = 0.0
        for size in SIZES:
            command = [sys.executable, __file__, arguments.what, "--size", str(size), "--rounds", str(arguments.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            ratio, gradient, first, peak = (float(word) for word in done.stdout.split()[-4:])
            base = base or peak
            print(f"| {size} | {ratio:.1f} | {gradient:.1f} | {first:.1f} | {peak - base:.0f} |", flush=True)


if __name__ == "__main__":
    main()
