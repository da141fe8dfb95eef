"""Time of an optimizer's apply in Keras 3, next to Keras' own optimizers, on each backend.

    python -m benchmarks.keras_step [--backends tensorflow,jax,torch] [--rounds 60]

On TensorFlow and JAX the apply is jitted, as inside a train step of `fit`; on torch it is called as `fit` calls it. All
optimizers of a backend live in one process and take turns, so that what else the machine does falls on all of them; the
medians of the turns are compared.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

MODELS: dict[str, list[tuple[int, ...]]] = {
    "many layers": [(192, 192), (192,)] * 100,
    "one large layer": [(2048, 4096), (4096,)],
}

AIMS: dict[str, dict[str, float]] = {"INNA": {"SGD, momentum": 1.3, "Adam": 1.0}, "INNAprop": {"Adam": 1.0}}
"""By optimizer: peers, and the largest ratio aimed at."""


def optimizers() -> dict[str, Callable[[], Any]]:
    import keras

    import inna_keras

    return {
        "SGD, momentum": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
        "Adam": lambda: keras.optimizers.Adam(1e-3),
        "AdamW": lambda: keras.optimizers.AdamW(1e-3),
        "INNA": lambda: inna_keras.INNA(1e-3),
        "INNAprop": lambda: inna_keras.INNAprop(1e-3, weight_decay=None),
        "INNAprop, decay": lambda: inna_keras.INNAprop(1e-3),
    }


def tensorflow_turn(optimizer: Any, variables: list[Any], grads: list[Any]) -> Callable[[], Any]:
    import tensorflow as tf

    apply = tf.function(lambda grads: optimizer.apply(grads, variables), jit_compile=True)

    def turn() -> None:
        apply(grads)
        variables[-1].value.numpy()  # waits

    return turn


def jax_turn(optimizer: Any, variables: list[Any], grads: list[Any]) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    apply = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
    carry = jax.tree.map(jnp.copy, ([v.value for v in variables], [v.value for v in optimizer.variables]))

    def turn() -> None:
        nonlocal carry
        params, state = carry
        carry = jax.block_until_ready(apply(state, grads, params))

    return turn


def torch_turn(optimizer: Any, variables: list[Any], grads: list[Any]) -> Callable[[], Any]:
    import torch

    def turn() -> None:
        with torch.no_grad():
            optimizer.apply(grads, variables)

    return turn


TURNS = {"tensorflow": tensorflow_turn, "jax": jax_turn, "torch": torch_turn}


def measure(rounds: int) -> None:
    import keras
    import numpy as np

    backend = keras.backend.backend()
    rng = np.random.default_rng(0)
    for model, shapes in MODELS.items():
        values = [rng.standard_normal(shape, np.float32) for shape in shapes]
        grads = [keras.ops.convert_to_tensor(0.01 * value) for value in values]
        turns, times = {}, {}
        for name, make in optimizers().items():
            optimizer, variables = make(), [keras.Variable(value, name=f"v{i}") for i, value in enumerate(values)]
            optimizer.build(variables)
            turns[name], times[name] = TURNS[backend](optimizer, variables, grads), []
        for number in range(rounds + 5):
            for name, turn in turns.items():
                begin = time.perf_counter()
                turn()
                if number >= 5:
                    times[name].append(time.perf_counter() - begin)
        median = {name: statistics.median(values) for name, values in times.items()}
        for name, value in median.items():
            of_sgd, of_adam = value / median["SGD, momentum"], value / median["Adam"]
            met = all(value <= aim * median[peer] for peer, aim in AIMS.get(name, {}).items())
            aims = ", ".join(f"{aim:g} x {peer.split(',')[0]}" for peer, aim in AIMS.get(name, {}).items())
            verdict = f"{aims}: {'met' if met else 'missed'}" if aims else ""
            print(
                f"| {backend} | {model} | {name} | {1e3 * value:.2f} | {of_sgd:.2f} | {of_adam:.2f} | {verdict} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="tensorflow,jax,torch", help="separated by commas")
    parser.add_argument("--rounds", type=int, default=60, help="timed steps of each optimizer")
    parser.add_argument("--here", action="store_true", help="measure in this process, with its own backend")
    arguments = parser.parse_args()
    if arguments.here:
        measure(arguments.rounds)
        return
    print("| backend | model | optimizer | ms | of SGD | of Adam | aim |\n|---|---|---|---|---|---|---|", flush=True)
    for backend in arguments.backends.split(","):
        command = [sys.executable, "-m", "benchmarks.keras_step", "--here", "--rounds", str(arguments.rounds)]
        env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, env=env, check=True)


if __name__ == "__main__":
    main()
