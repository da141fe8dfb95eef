"""Runs a host in a process of its own and brings its trajectory back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.quickstart.problem import Problem
from benchmarks.quickstart.recording import UnavailableError
from benchmarks.quickstart.rows import Host
from benchmarks.quickstart.worker import PROBLEM, TRAJECTORY

TAIL = 15

# The network is too small for a second thread to help, and on a busy machine torch's threads, which wait for each other
# spinning, make it ten times slower. A value of the user's own goes first.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class CrashError(Exception):
    """The host's process failed; the message is the end of what it said."""


@dataclass(frozen=True)
class Trajectory:
    """What one host did.

    Attributes:
        host: the host's name.
        device: where it trained, in the host's words.
        seconds: of training, compilation included and imports not.
        accuracy: share of the test images that the trained network gets right.
        losses: mean training loss of each epoch.
        steps: numbers of the steps after which the weights were recorded.
        weights: one row of all parameters for each of the steps.
    """

    host: str
    device: str
    seconds: float
    accuracy: float
    losses: np.ndarray
    steps: np.ndarray
    weights: np.ndarray


def run(host: Host, problem: Problem, progress: Callable[[int], None]) -> Trajectory:
    """Train on a host.

    Args:
        host: row of the host.
        problem: what it trains on.
        progress: called with the number of steps made.

    Returns:
        The host's trajectory.

    Raises:
        UnavailableError: if the machine lacks the device.
        CrashError: if the process failed.
    """
    with TemporaryDirectory(prefix="inna-quickstart-") as name:
        folder = Path(name)
        problem.save(folder / PROBLEM)
        command = [sys.executable, "-m", "benchmarks.quickstart.worker", host.module, host.option, name]
        # The child imports from where this process does, whatever put those places on the path.
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**ONE_THREAD, **os.environ, **host.environment, "PYTHONPATH": path}
        with (
            (folder / "stderr").open("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as child,
        ):
            try:
                for line in child.stdout or ():
                    message = json.loads(line)
                    if "unavailable" in message:
                        raise UnavailableError(message["unavailable"])
                    progress(message["step"])
            finally:
                if sys.exc_info()[0] is not None:
                    child.kill()
            if child.wait() != 0:
                errors.seek(0)
                tail = "".join(errors.readlines()[-TAIL:]).rstrip()
                raise CrashError(f"exit status {child.returncode}\n{tail}")
        with np.load(folder / TRAJECTORY) as saved:
            return Trajectory(
                host=host.name,
                device=str(saved["device"]),
                seconds=float(saved["seconds"]),
                accuracy=float(saved["accuracy"]),
                **{field: saved[field] for field in ("losses", "steps", "weights")},
            )
