"""Time and extra memory of one step of the torch optimizers, against torch's own.

    python -m benchmarks.torch_step                      # all layouts; a few minutes
    python -m benchmarks.torch_step --layouts gpt2 --rounds 50
    python -m benchmarks.torch_step --device cuda
    python -m benchmarks.torch_step --dtype bfloat16     # compensated sums, where torch has none

Everything is interleaved in one process: each round makes one step of every optimizer, in an order that turns, so that
what slows the machine for a while slows all of them. A ratio is the median over the rounds of the ratio of two
neighbours in a round. Exit status 1 if a target is missed.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import inna_torch


def gpt2() -> list[tuple[int, ...]]:
    """Return the shapes of a GPT-2-like model of 23 million parameters."""
    width = 384
    block = [
        *[(width,)] * 2,
        *[(3 * width, width), (3 * width,)],
        *[(width, width), (width,)],
        *[(width,)] * 2,
        *[(4 * width, width), (4 * width,)],
        *[(width, 4 * width), (width,)],
    ]
    return [(8000, width), (1024, width), *block * 11, (width,), (width,)]


LAYOUTS: dict[str, list[tuple[int, ...]]] = {
    "gpt2": gpt2(),
    "one": [(20_000_000,)],
    "small": [(64, 64)] * 500,
}


class PublishedINNA(torch.optim.Optimizer):
    """The paper's recurrence in psi form, as one writes it down, to compare with."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "alpha": 0.5, "beta": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            lr, alpha, beta = group["lr"], group["alpha"], group["beta"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["psi"] = (1 - alpha * beta) * p
                phase = (1 / beta - alpha) * p - 1 / beta * state["psi"]
                state["psi"] = state["psi"] + lr * phase
                p.add_(lr * (phase - beta * p.grad))


Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "SGD fused": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, fused=True),
    "INNA fused": lambda p: inna_torch.INNA(p, 0.05, fused=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, fused=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, foreach=True),
    "INNA foreach": lambda p: inna_torch.INNA(p, 0.05, foreach=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "INNA": inna_torch.INNA,
    "AdamW": torch.optim.AdamW,
    "published INNA": PublishedINNA,
    "INNAprop": inna_torch.INNAprop,
    "INNA compiled": lambda p: inna_torch.INNA(p, 0.05, compiled=True),
    "INNAprop compiled": lambda p: inna_torch.INNAprop(p, compiled=True),
}


@dataclass(frozen=True)
class Target:
    """A ratio of the times of two optimizers, and the most that it should be.

    Attributes:
        ours: name of the one.
        theirs: name of the other.
        most: target for float32 on a CPU; infinite where there is none.
        layouts: where it is measured.
    """

    ours: str
    theirs: str
    most: float = math.inf
    layouts: tuple[str, ...] = tuple(LAYOUTS)


TARGETS = (
    Target("INNA fused", "SGD fused", 1.10),
    Target("INNA fused", "AdamW fused", 0.85),
    Target("INNA foreach", "SGD foreach", 1.5),
    Target("INNA foreach", "AdamW foreach", 0.5),
    Target("INNA", "AdamW", 0.35),
    Target("INNA", "published INNA", 0.25, ("one",)),
    Target("INNAprop", "AdamW foreach", 0.8),
    Target("INNAprop", "AdamW fused"),  # the target is for its best path
    Target("INNAprop compiled", "AdamW fused", 1.5),
)
NARROW_TARGETS = (
    Target("INNA", "AdamW fused"),
    Target("INNA compiled", "AdamW fused"),
    Target("INNAprop", "AdamW fused"),
    Target("INNAprop compiled", "AdamW fused"),
)
"""For float16 and bfloat16 there is no kernel, and ours compensate sums, which torch's do not: no targets."""

EXTRA_MEMORY = dict.fromkeys(("INNA fused", "INNA foreach", "INNAprop", "INNAprop compiled"), 0.05)
"""By optimizer, the most that a step may allocate besides the state, as a fraction of the parameters."""


@dataclass(frozen=True)
class Kind:
    """What the tensors are.

    Attributes:
        device: where they are.
        dtype: of parameters and gradients.
    """

    device: str
    dtype: torch.dtype


def ready(make: Make, shapes: Sequence[tuple[int, ...]], kind: Kind) -> torch.optim.Optimizer:
    """Return an optimizer of random parameters with gradients, its state made."""
    params = [torch.nn.Parameter(torch.randn(shape, device=kind.device, dtype=kind.dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = make(params)
    optimizer.step()
    optimizer.step()
    return optimizer


def seconds(step: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    step()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def ratios(shapes: Sequence[tuple[int, ...]], targets: Sequence[Target], rounds: int, kind: Kind) -> list[list[float]]:
    """Return, for each target, the ratio of each round.

    Args:
        shapes: of the parameters.
        targets: pairs of optimizers; each pair is timed next to each other.
        rounds: how often.
        kind: of the tensors.
    """
    names = {name for target in targets for name in (target.ours, target.theirs)}
    steps = {name: ready(OPTIMIZERS[name], shapes, kind).step for name in sorted(names)}
    found: list[list[float]] = [[] for _ in targets]
    for k in range(rounds):
        for target, values in zip(targets, found, strict=True):
            pair = (target.ours, target.theirs) if k % 2 else (target.theirs, target.ours)
            took = {name: seconds(steps[name], kind.device) for name in pair}
            values.append(took[target.ours] / took[target.theirs])
    return found


def extra_memory(make: Make, shapes: Sequence[tuple[int, ...]], kind: Kind) -> float:
    """Return the most memory that a step held beyond what it found, as a fraction of the parameters."""
    optimizer = ready(make, shapes, kind)
    size = sum(p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"])
    if kind.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        optimizer.step()
        return (torch.cuda.max_memory_allocated() - before) / size
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    held = most = 0
    profiler: Any = profile.profiler
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / size


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_step", description="Time and extra memory of one step."
    )
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32")
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        print(f"skipped: torch sees no {options.device} device")
        return 0
    torch.set_num_threads(options.threads)
    kind, missed = Kind(options.device, getattr(torch, options.dtype)), 0
    setting = f"{options.device}, {options.dtype}, {options.threads} threads, {options.rounds} rounds"
    print(f"torch {torch.__version__}, {setting}\n")
    print("| layout | ours | against | ratio: median | quartiles | at most | |\n|---|---|---|---|---|---|---|")
    for layout in options.layouts:
        of_dtype = NARROW_TARGETS if kind.dtype.itemsize < 4 else TARGETS
        targets = [target for target in of_dtype if layout in target.layouts]
        found = ratios(LAYOUTS[layout], targets, options.rounds, kind)
        for target, values in zip(targets, found, strict=True):
            low, middle, high = statistics.quantiles(values, n=4)
            missed += middle > target.most
            verdict = "" if middle <= target.most else "missed"
            print(
                f"| {layout} | {target.ours} | {target.theirs} | {middle:.2f} | {low:.2f} to {high:.2f} "
                f"| {'' if target.most == math.inf else target.most} | {verdict} |",
                flush=True,
            )
        for name, bound in EXTRA_MEMORY.items() if of_dtype is TARGETS else ():
            part = extra_memory(OPTIMIZERS[name], LAYOUTS[layout], kind)
            missed += part > bound
            verdict = "" if part <= bound else "missed"
            print(f"| {layout} | {name} | extra memory / parameters | {part:.3f} | | {bound} | {verdict} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
