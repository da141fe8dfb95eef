"""One host's process: ``python -m benchmarks.quickstart.worker MODULE OPTION FOLDER``.

Reads the problem from the folder, trains, and writes the trajectory back into it. Speaks to its parent in JSON lines
on standard output: ``{"step": 10}``, or ``{"unavailable": "reason"}`` once.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quickstart.problem import Problem
from benchmarks.quickstart.recording import Recorder, UnavailableError

PROBLEM, TRAJECTORY = "problem.npz", "trajectory.npz"


def own_standard_output() -> Callable[[dict[str, Any]], None]:
    """Return a function that writes a message to the parent, and send everything else to standard error.

    Frameworks print to standard output from C++ too, which would tear the messages apart.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=channel, flush=True)

    return send


def main(module: str, option: str, folder: Path) -> None:
    send = own_standard_output()
    problem = Problem.load(folder / PROBLEM)
    train = import_module(module).train
    recorder = Recorder(problem.steps, lambda step: send({"step": step}))
    try:
        device, scores = train(option, problem, recorder)
    except UnavailableError as reason:
        send({"unavailable": str(reason)})
        return
    np.savez(
        folder / TRAJECTORY,
        device=device,
        seconds=recorder.seconds,
        accuracy=problem.accuracy(scores),
        losses=recorder.losses,
        steps=recorder.steps,
        weights=recorder.weights,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
