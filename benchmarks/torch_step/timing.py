"""Measures steps: their time, interleaved, and the memory they allocate."""

import math
import random
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.torch_step.layouts import LAYOUTS, Setting, param_groups
from benchmarks.torch_step.optimizers import OPTIMIZERS

WARM_UP_STEPS = 3
SAMPLE_SECONDS = 0.005
"""How long the steps of a fast optimizer take in one round."""


class Ratio(NamedTuple):
    """Two series of step times, one sample a round, compared.

    Attributes:
        median: ratio of the two medians.
        low: lower quartile of the ratios of the rounds.
        high: upper quartile.
        step_ms: median time of the first series, milliseconds a step.
    """

    median: float
    low: float
    high: float
    step_ms: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Ratio":
        """Compare two series of seconds a step, at least two rounds each."""
        low, _, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
        ours_median = statistics.median(ours)
        return cls(ours_median / statistics.median(theirs), low, high, 1e3 * ours_median)


class Stepper:
    """An optimizer with its own parameters, ready to be timed.

    Args:
        name: key of `OPTIMIZERS`.
        layout: key of `LAYOUTS`.
        setting: device, dtype and threads.

    Attributes:
        steps: number of steps in a sample.
        warnings: what the optimizer warned of while it warmed up, such as a missing compiler.
    """

    def __init__(self, name: str, layout: str, setting: Setting) -> None:
        self.optimizer = OPTIMIZERS[name](param_groups(LAYOUTS[layout], setting))
        self.device = setting.device
        self.steps = WARM_UP_STEPS
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.sample()
        self.warnings = sorted({str(warning.message) for warning in caught})
        self.steps = 1
        while (seconds := min(self.sample() for _ in range(3)) * self.steps) < SAMPLE_SECONDS:
            self.steps = math.ceil(self.steps * min(10.0, 1.2 * SAMPLE_SECONDS / seconds))

    def sample(self) -> float:
        """Return the seconds that a step takes, the mean of a sample; work queued on a GPU is waited for."""
        self.synchronize()
        started = time.perf_counter()
        for _ in range(self.steps):
            self.optimizer.step()
        self.synchronize()
        return (time.perf_counter() - started) / self.steps

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def step_times(steppers: dict[str, Stepper], rounds: int) -> dict[str, list[float]]:
    """Return each optimizer's seconds a step, one sample a round.

    A sample is the median of single steps. As in training, a forward and a backward pass come before each, so that its
    code and tensors are not in the fastest caches. The steps of all optimizers alternate at random. On a GPU, which
    runs behind the program, a sample's steps follow one another and are waited for together.
    """
    times: dict[str, list[float]] = {name: [] for name in steppers}
    on_cpu = all(stepper.device == "cpu" for stepper in steppers.values())
    network = torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    images = torch.ones(64, 784)
    for k in range(rounds):
        shuffled = random.Random(k)
        if not on_cpu:
            for name in shuffled.sample(sorted(steppers), len(steppers)):
                times[name].append(steppers[name].sample())
            continue
        single: dict[str, list[float]] = {name: [] for name in steppers}
        turns = [name for name in sorted(steppers) for _ in range(steppers[name].steps)]
        for name in shuffled.sample(turns, len(turns)):
            network.zero_grad()
            network(images).sum().backward()
            started = time.perf_counter()
            steppers[name].optimizer.step()
            single[name].append(time.perf_counter() - started)
        for name, seconds in single.items():
            times[name].append(statistics.median(seconds))
    return times


def extra_memory(optimizer: torch.optim.Optimizer, setting: Setting) -> int:
    """Return the most bytes that a step held beyond what it found."""
    if setting.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        optimizer.step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    held = most = 0
    profiler: Any = profile.profiler
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def parameter_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the size of an optimizer's parameters."""
    return sum(p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"])
