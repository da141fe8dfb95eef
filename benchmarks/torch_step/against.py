"""Times our steps against those of another checkout of this repository, in two processes that take turns."""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.torch_step.layouts import Setting

HERE = Path(__file__).resolve().parents[2]
AT_MOST = 1.05
"""No slower, but for noise."""


def serve(checkout: Path, setting: Setting, pipe: Connection) -> None:
    """Time the optimizers of a checkout on demand: a name and a layout prepare one, a number of steps times it.

    This module imports `inna_torch` nowhere else, so that the process has no other checkout's.
    """
    sys.path[:0] = [str(checkout), str(checkout / "adapters")]
    import inna_core
    import inna_torch

    for package in (inna_core, inna_torch):
        if not Path(str(package.__file__)).is_relative_to(checkout):
            raise RuntimeError(f"{package.__name__} comes from {package.__file__}, not from {checkout}")
    from benchmarks.torch_step.timing import Stepper

    torch.set_num_threads(setting.threads)
    stepper: Stepper | None = None
    while (message := pipe.recv()) is not None:
        if isinstance(message, tuple):
            stepper = None  # frees the previous one's memory first
            name, layout = message
            stepper = Stepper(name, layout, setting)
            pipe.send(stepper.steps)
        elif stepper is not None:
            stepper.steps = 1
            stepper.sample()  # refills the caches, which the other process has used
            stepper.steps = message
            pipe.send(stepper.sample())


@contextmanager
def server(checkout: Path, setting: Setting) -> Iterator[Connection]:
    """Yield the pipe to a process that times the optimizers of a checkout."""
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=serve, args=(checkout, setting, far_end), daemon=True)
    process.start()
    far_end.close()  # so that the pipe breaks where the process fails
    try:
        yield pipe
        pipe.send(None)
    finally:
        process.join(5)
        process.kill()


def ask(pipe: Connection, message: Any) -> Any:
    pipe.send(message)
    return pipe.recv()


def step_times(
    checkout: Path, cases: Sequence[tuple[str, str]], rounds: int, setting: Setting
) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """Yield an optimizer, a layout, and the seconds a step here and in the other checkout, one sample a round.

    Args:
        checkout: root of the other checkout.
        cases: optimizers and layouts.
        rounds: samples of each; which process goes first alternates.
        setting: device, dtype and threads.
    """
    with server(HERE, setting) as here, server(checkout.resolve(), setting) as there:
        for case in cases:
            steps = max(ask(pipe, case) for pipe in (here, there))
            times: tuple[list[float], list[float]] = ([], [])
            for k in range(rounds):
                for turn in (k % 2, 1 - k % 2):
                    times[turn].append(ask((here, there)[turn], steps))
            yield (*case, *times)
