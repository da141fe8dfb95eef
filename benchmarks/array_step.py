"""Time of one step on NumPy arrays: `inna_core.in_place` and the plain update, next to the recurrence in NumPy.

    python -m benchmarks.array_step [--elements 20e6] [--rounds 15]

The naive recurrence is what one writes without this package:

    theta = theta + lr * (v - beta * g); v = (1 - alpha * lr) * v - lr * (1 - alpha * beta) * g

All steps live in one process and take turns, so that what else the machine does falls on all of them; the medians of
the turns are compared, and those of the CPU time, on which the rest of the machine has less effect. The extra memory of
a step is the peak that tracemalloc sees, of one step apart from the timing.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

import inna_core
from inna_core.in_place import update_in_place

LR, ALPHA, BETA = 0.01, 0.5, 0.1
AIMS = {"INNA": 0.6}
"""By row, the largest ratio aimed at."""

Step = Callable[[], None]


def naive(theta: np.ndarray, g: np.ndarray) -> Step:
    """Return a step of the recurrence, written with NumPy expressions."""
    v = np.zeros_like(theta)

    def step() -> None:
        nonlocal theta, v
        theta = theta + LR * (v - BETA * g)
        v = (1 - ALPHA * LR) * v - LR * (1 - ALPHA * BETA) * g

    return step


def plain(algorithm: inna_core.Algorithm, theta: np.ndarray, g: np.ndarray) -> Step:
    """Return a step that makes new arrays."""
    state = algorithm.init(theta)

    def step() -> None:
        nonlocal theta, state
        delta, state = algorithm.update(g, state, theta, LR)
        theta = theta + delta

    return step


def in_place(algorithm: inna_core.Algorithm, theta: np.ndarray, g: np.ndarray) -> Step:
    """Return a step that overwrites its own copy of the parameter."""
    theta, state = theta.copy(), algorithm.init(theta)

    def step() -> None:
        nonlocal theta, state
        theta, state = update_in_place(algorithm, g, state, theta, LR)

    return step


def extra_memory(step: Step) -> int:
    """Return by how many bytes a step exceeds the memory before it, at most."""
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=float, default=20e6, help="of the parameter")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each row")
    arguments = parser.parse_args()

    inna, innaprop = inna_core.INNA(ALPHA, BETA), inna_core.INNAprop()
    print(f"NumPy {np.__version__}, {arguments.elements / 1e6:g} M elements\n")
    print("| dtype | step | ms | of the naive recurrence | quartiles | at most | of its CPU time | extra memory, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for dtype in ("float32", "float64"):
        rng = np.random.default_rng(0)
        theta, g = (rng.standard_normal(int(arguments.elements)).astype(dtype) for _ in range(2))
        steps = {
            "naive": naive(theta, g),
            "INNA": in_place(inna, theta, g),
            "INNA, new arrays": plain(inna, theta, g),
            "INNAprop": in_place(innaprop, theta, g),
            "INNAprop, new arrays": plain(innaprop, theta, g),
        }
        memory = {name: extra_memory(step) for name, step in steps.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        cpu: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.rounds):
            for name, step in steps.items():
                begin, cpu_begin = time.perf_counter(), time.process_time()
                step()
                times[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - cpu_begin)
        for name in steps:
            median = statistics.median(times[name])
            ratio = median / statistics.median(times["naive"])
            low, _, high = statistics.quantiles([a / b for a, b in zip(times[name], times["naive"], strict=True)])
            print(
                f"| {dtype} | {name} | {1e3 * median:.0f} | {ratio:.2f} | {low:.2f} to {high:.2f} | "
                f"{AIMS.get(name, '')} | {statistics.median(cpu[name]) / statistics.median(cpu['naive']):.2f} | "
                f"{memory[name] / 1e6:.1f} |"
            )


if __name__ == "__main__":
    main()
