"""Time of one jitted, donated optimizer step in JAX, next to optax's own optimizers.

    python -m benchmarks.optax_step [--rounds 60] [--scale 1.0]

The parameters have the shapes of a GPT-2 with 23 million of them. All steps live in one process and take turns, so that
what else the machine does falls on all of them; the medians of the turns are compared. Copies and temporary memory are
read from the compiled programs.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inna_optax import inna, innaprop

COSINE = optax.cosine_decay_schedule(1e-3, 100_000)


@dataclass(frozen=True)
class Row:
    """An optimizer, and the peers it is compared with, with the largest ratio aimed at."""

    optimizer: Callable[[], optax.GradientTransformation]
    aims: dict[str, float] = field(default_factory=dict)


INNA_AIMS = {"optax.sgd, momentum": 1.3, "optax.adamw": 0.8}
INNAPROP_AIMS = {"optax.adamw": 1.3}

ROWS: dict[str, Row] = {
    "optax.sgd, momentum": Row(lambda: optax.sgd(1e-3, momentum=0.9)),
    "optax.adamw": Row(lambda: optax.adamw(1e-3)),
    "inna": Row(lambda: inna(1e-3), INNA_AIMS),
    "inna, cosine": Row(lambda: inna(COSINE), INNA_AIMS),
    "innaprop": Row(lambda: innaprop(1e-3), INNAPROP_AIMS),
    "innaprop, cosine": Row(lambda: innaprop(COSINE), INNAPROP_AIMS),
}


def gpt2_shapes(vocabulary: int = 8192, context: int = 256, width: int = 512, layers: int = 6) -> list[tuple[int, ...]]:
    """Return the shapes of a GPT-2's parameters."""
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    mlp = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(vocabulary, width), (context, width), *(norm + attention + norm + mlp) * layers, *norm]


class Contestant:
    """A compiled step with its own parameters and state, and the times it took."""

    def __init__(self, row: Row, start: list[jax.Array], grads: list[jax.Array]) -> None:
        transform = row.optimizer()

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._grads = grads
        self._carry = [jnp.copy(p) for p in start], transform.init(start)
        jitted = jax.jit(step, donate_argnums=(0, 1))
        self._step: Any = jitted.lower(*self._carry, grads).compile()
        self.copies = len(re.findall(r"= \w+\[[\d,]+\]\S* copy\(", self._step.as_text()))
        self.temporary = self._step.memory_analysis().temp_size_in_bytes
        self.times: list[float] = []

    def turn(self) -> None:
        begin = time.perf_counter()
        self._carry = jax.block_until_ready(self._step(*self._carry, self._grads))
        self.times.append(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="timed steps of each optimizer")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the width of the model")
    arguments = parser.parse_args()

    shapes = gpt2_shapes(width=int(512 * arguments.scale))
    start = [0.02 * jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
    grads = [0.01 * jax.random.normal(jax.random.key(1000 + i), shape) for i, shape in enumerate(shapes)]
    contestants = {name: Contestant(row, start, grads) for name, row in ROWS.items()}
    for number in range(arguments.rounds + 5):
        for contestant in contestants.values():
            contestant.turn()
            if number < 5:
                contestant.times.clear()

    median = {name: statistics.median(contestant.times) for name, contestant in contestants.items()}
    device = jax.devices()[0]
    total = sum(p.size for p in start) / 1e6
    print(f"jax {jax.__version__}, optax {optax.__version__}, {device.device_kind}, {total:.1f} M parameters")
    print("\n| step | ms | of sgd | of adamw | copies | temporary MB | aim |\n|---|---|---|---|---|---|---|")
    for name, row in ROWS.items():
        contestant = contestants[name]
        of_sgd, of_adamw = (median[name] / median[peer] for peer in ("optax.sgd, momentum", "optax.adamw"))
        met = all(median[name] <= aim * median[peer] for peer, aim in row.aims.items())
        aims = ", ".join(f"{aim} x {peer.split(',')[0].split('.')[1]}" for peer, aim in row.aims.items())
        verdict = f"{aims}: {'met' if met else 'missed'}" if aims else ""
        print(
            f"| {name} | {1e3 * median[name]:.1f} | {of_sgd:.2f} | {of_adamw:.2f} | {contestant.copies} | "
            f"{contestant.temporary / 1e6:.1f} | {verdict} |"
        )


if __name__ == "__main__":
    main()
