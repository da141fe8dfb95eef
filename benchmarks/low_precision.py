"""How far float32, float16 and bfloat16 runs end from a float64 run that is fed the same gradients.

    python -m benchmarks.low_precision [--out FILE.json]

2000 noisy steps of INNA on a quadratic. The gradients are those of the float64 run, rounded to the low precision, so
that every row adds up the same numbers and only its own rounding differs. The last column is what rounding the float64
result once would cost: no method that stores parameters in that dtype can do better.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import inna_core
import inna_torch

ALPHA, BETA, LR, STEPS, SIZE = 0.5, 0.1, 0.01, 2000, 4096

Method = Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]
"""Maps initial parameters and gradients, in one dtype, to final parameters."""


def psi_form(theta: torch.Tensor, grads: Sequence[torch.Tensor]) -> torch.Tensor:
    """The paper's two lines, everything in the parameters' dtype."""
    psi = (1 - ALPHA * BETA) * theta
    for g in grads:
        common = (1 / BETA - ALPHA) * theta - psi / BETA
        theta, psi = theta + LR * (common - BETA * g), psi + LR * common
    return theta


def velocity_form(theta: torch.Tensor, grads: Sequence[torch.Tensor]) -> torch.Tensor:
    """The core's update, everything in the parameters' dtype."""
    inna = inna_core.INNA(ALPHA, BETA)
    state = inna.init(theta)
    for g in grads:
        delta, state = inna.update(g, state, theta, LR)
        theta = theta + delta
    return theta


def optimizer(kahan_sum: bool) -> Method:
    """`inna_torch.INNA`, whose velocity is float32."""

    def run(theta: torch.Tensor, grads: Sequence[torch.Tensor]) -> torch.Tensor:
        p = torch.nn.Parameter(theta.clone())
        inna = inna_torch.INNA([p], lr=LR, alpha=ALPHA, beta=BETA, kahan_sum=kahan_sum)
        for g in grads:
            p.grad = g
            inna.step()
        return p.detach()

    return run


METHODS: dict[str, Method] = {
    "psi form": psi_form,
    "velocity form": velocity_form,
    "float32 velocity": optimizer(kahan_sum=False),
    "float32 velocity, compensated": optimizer(kahan_sum=True),
}


def experiment(dtype: torch.dtype, seed: int = 0, steps: int = STEPS, size: int = SIZE) -> dict[str, float]:
    """Return the relative error of each method, and of rounding the float64 result ("rounding")."""
    rng = np.random.default_rng(seed)
    curvature = torch.tensor(10 ** rng.uniform(-2, 1, size))
    target = torch.tensor(rng.standard_normal(size))
    start = torch.tensor(rng.standard_normal(size)).to(dtype)
    theta, grads = start.double(), []
    inna = inna_core.INNA(ALPHA, BETA)
    state = inna.init(theta)
    for _ in range(steps):
        noisy = curvature * (theta - target) + 0.3 * torch.tensor(rng.standard_normal(size))
        grads.append(noisy.to(dtype))
        delta, state = inna.update(grads[-1].double(), state, theta, LR)
        theta = theta + delta

    def error(found: torch.Tensor) -> float:
        return float((found.double() - theta).norm() / theta.norm())

    return {"rounding": error(theta.to(dtype)), **{name: error(run(start, grads)) for name, run in METHODS.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "low_precision.json")
    out: Path = parser.parse_args().out
    results = {str(d).split(".")[1]: experiment(d) for d in (torch.float32, torch.float16, torch.bfloat16)}
    table = Table("dtype", *METHODS, "rounding the float64 result", title=f"relative error after {STEPS} steps")
    for dtype, errors in results.items():
        table.add_row(dtype, *(f"{errors[name]:.1e}" for name in METHODS), f"{errors['rounding']:.1e}")
    Console().print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
