"""Times steps of the torch optimizers against torch's own, and prints a table.

    python -m benchmarks.torch_step                                  # all layouts; some minutes
    python -m benchmarks.torch_step --layout gpt2,one --rows "INNAprop compiled" --rounds 50
    python -m benchmarks.torch_step --dtype bfloat16,float16         # compensated sums, where torch has none
    python -m benchmarks.torch_step --device cuda --dtype float32,bfloat16 --json cuda.json
    python -m benchmarks.torch_step --against ../main --layout gpt2,small --dtype bfloat16,float16

Each round takes one sample of every optimizer in one process, so that what slows the machine for a while slows all of
them: the median of the steps that fit into 5 ms, or of one. The steps of all optimizers alternate at random, each after
a forward and a backward pass of a small network, as in training. On a GPU a sample is 5 ms of successive steps and ends
when the GPU has finished. The ratio is that of the medians; the quartiles are those of the ratios within each round.
Exit status 1 if a target is missed.

Kernels that share their work between threads wait for the slowest one: where other programs keep the cores busy, times
of small tensors say nothing unless --threads is 1.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.torch_step import against
from benchmarks.torch_step.layouts import LAYOUTS, Setting
from benchmarks.torch_step.rows import selected
from benchmarks.torch_step.timing import Ratio, Stepper, extra_memory, parameter_bytes, step_times

DTYPES = ("float32", "float64", "bfloat16", "float16")
MIB = 2**20
EXTRA_MEMORY = 0.05
"""The most that a step may allocate, as a fraction of the parameters; 1 MiB is always allowed."""


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        layout: key of `LAYOUTS`.
        dtype: of the parameters.
        ours: what was measured.
        theirs: what it was divided by.
        ratio: the quotient.
        low: lower quartile; None for memory, which is measured once.
        high: upper quartile.
        step_ms: our median, milliseconds a step; None for memory.
        at_most: target, None without one.
    """

    layout: str
    dtype: str
    ours: str
    theirs: str
    ratio: float
    low: float | None
    high: float | None
    step_ms: float | None
    at_most: float | None

    @property
    def missed(self) -> bool:
        return self.at_most is not None and self.ratio > self.at_most

    def __str__(self) -> str:
        if self.low is None:
            ratio, quartiles, step = f"{self.ratio:.3f}", "", ""
        else:
            ratio, quartiles, step = f"{self.ratio:.2f}", f"{self.low:.2f} to {self.high:.2f}", f"{self.step_ms:.3g}"
        target = "" if self.at_most is None else f"{self.at_most:.3g}"
        verdict = "missed" if self.missed else ""
        return (
            f"| {self.layout} | {self.ours} | {self.theirs} | {ratio} | {quartiles} | {step} | {target} | {verdict} |"
        )


HEADER = "| layout | ours | against | ratio | quartiles | our step, ms | at most | |\n|---|---|---|---|---|---|---|---|"


def finite(target: float) -> float | None:
    return target if target < math.inf else None


def lines(layout: str, setting: Setting, options: argparse.Namespace) -> Iterator[Line]:
    """Yield the lines of a layout: ratios of times, then the memory of our steps."""
    dtype, rows = str(setting.dtype).removeprefix("torch."), []
    for row in selected(layout, setting, options.rows):
        if reason := row.unsuitable(layout, setting):
            print(f"left out: {layout}, {row}: {reason}", file=sys.stderr)
        else:
            rows.append(row)
    names = sorted({name for row in rows for name in (row.ours, row.theirs)})
    steppers = {name: Stepper(name, layout, setting) for name in names}
    for name, stepper in steppers.items():
        for warning in stepper.warnings:
            print(f"warning: {layout}, {name}: {warning}", file=sys.stderr)
    times = step_times(steppers, options.rounds)
    for row in rows:
        ratio = Ratio.of(times[row.ours], times[row.theirs])
        yield Line(layout, dtype, row.ours, row.theirs, *ratio, finite(row.target(layout, setting)))
    for name in sorted({row.ours for row in rows}):
        optimizer = steppers[name].optimizer
        size = parameter_bytes(optimizer)
        part = extra_memory(optimizer, setting) / size
        bound = max(EXTRA_MEMORY, MIB / size)
        yield Line(layout, dtype, name, "extra memory / parameters", part, None, None, None, bound)


def lines_against(setting: Setting, options: argparse.Namespace) -> Iterator[Line]:
    """Yield the times of our optimizers, divided by those of another checkout."""
    dtype, cases = str(setting.dtype).removeprefix("torch."), []
    for layout in options.layout:
        rows = [row for row in selected(layout, setting, options.rows) if not row.unsuitable(layout, setting)]
        cases += [(name, layout) for name in dict.fromkeys(row.ours for row in rows)]
    for name, layout, here, there in against.step_times(options.against, cases, options.rounds, setting):
        yield Line(layout, dtype, name, "other checkout", *Ratio.of(here, there), against.AT_MOST)


def comma_separated(choices: Sequence[str], text: str) -> list[str]:
    if unknown := [name for name in text.split(",") if name not in choices]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(choices)}")
    return text.split(",")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_step", description="Time and extra memory of one step."
    )
    parser.add_argument(
        "--layout",
        type=lambda text: comma_separated(list(LAYOUTS), text),
        default=list(LAYOUTS),
        metavar="A,B",
        help=f"parameters to update: {', '.join(LAYOUTS)} (default: all)",
    )
    parser.add_argument("--rows", default="", metavar="TEXT", help='only rows that contain it, as in "INNA / SGD"')
    parser.add_argument("--rounds", type=int, default=25, help="samples of each optimizer, at least 2 (default 25)")
    parser.add_argument("--threads", type=int, default=2, help="on a CPU (default 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype",
        type=lambda text: comma_separated(DTYPES, text),
        default=["float32"],
        metavar="A,B",
        help=f"of parameters and gradients: {', '.join(DTYPES)} (default float32)",
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with this checkout, not with torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    if options.against and not (options.against / "adapters" / "inna_torch").is_dir():
        parser.error(f"--against must be the root of a checkout, got {options.against}")
    if options.device != "cpu" and not torch.cuda.is_available():
        print(f"skipped: torch sees no {options.device} device")
        return 0
    torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    found: list[Line] = []
    for dtype in options.dtype:
        setting = Setting(options.device, getattr(torch, dtype), options.threads)
        load = f"load {os.getloadavg()[0]:.1f}"  # above 0.5 or so, look at the quartiles
        print(f"\ntorch {torch.__version__}, {device}, {load}, {dtype}, {options.rounds} rounds\n\n{HEADER}")
        if options.against:
            sources = [lines_against(setting, options)]
        else:
            sources = [lines(layout, setting, options) for layout in options.layout]
        for source in sources:
            for line in source:
                found.append(line)
                print(line, flush=True)
    if options.json:
        about = {"torch": torch.__version__, "device": device, "rounds": options.rounds}
        options.json.write_text(json.dumps({**about, "lines": [asdict(line) for line in found]}, indent=1) + "\n")
    return 1 if any(line.missed for line in found) else 0


if __name__ == "__main__":
    sys.exit(main())
