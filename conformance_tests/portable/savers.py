"""Processes that save to one path while something happens to them; each prints JSON, or what it raised.

    python -m conformance_tests.portable.savers FUNCTION ARGUMENT ...

They import NumPy and safetensors alone, so that they start fast and may fork.
"""

import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from inna_core import portable

SIZE = 20_000


def state_of(step: int, size: int = SIZE) -> portable.PortableState:
    """Return a state that says in every element which step it belongs to."""
    slots = {name: {"velocity": np.full(size, step, np.float64)} for name in ("first", "last")}
    return portable.PortableState("arrays", "INNA", step, slots)


def complete_step(path: str) -> int:
    """Return the step of the state in a file; raise if the file mixes two states."""
    state = portable.load(path)
    steps = {float(x) for slots in state.slots.values() for x in np.unique(slots["velocity"])}
    assert state.step is not None
    assert steps == {float(state.step)}, steps
    return state.step


def kill_while_saving(path: str, n: str, seed: str) -> dict[str, Any]:
    """Kill n processes at random times of their saves; return how many left a temporary file, and wrong states.

    After each kill the file must hold the last state whose `save` returned, or the one after it.
    """
    rng = random.Random(int(seed))
    returned = mmap.mmap(-1, 8)  # shared with the child: the last step whose save returned
    portable.save(path, state_of(0))
    interrupted, wrong, last = 0, [], 0
    for _ in range(int(n)):
        returned[:] = last.to_bytes(8, "little")
        child = os.fork()
        if child == 0:
            step = last
            while True:
                step += 1
                portable.save(path, state_of(step))
                returned[:] = step.to_bytes(8, "little")
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        least = int.from_bytes(returned[:], "little")
        last = complete_step(path)
        if last not in (least, least + 1):
            wrong.append((least, last))
        left = list(Path(path).parent.glob(".inna-*.tmp"))
        interrupted += bool(left)
        for temporary in left:
            temporary.unlink()
    return {"interrupted": interrupted, "wrong": wrong, "states": last}


def save_many(path: str, first: str, n: str) -> None:
    for step in range(int(first), int(first) + int(n)):
        portable.save(path, state_of(step))


def save_with_file_size_limit(path: str) -> None:
    """Save where a file may have 64 KiB: the write fails half-way, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    portable.save(path, state_of(2))


def save_to_full_disk(folder: str) -> list[str]:
    """Mount a file system of 512 KiB, save until it is full; return the files on it. Needs a mount namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True)
    path = f"{folder}/state"
    portable.save(path, state_of(1, 10_000))
    (Path(folder) / "other").write_bytes(bytes(200_000))
    try:
        portable.save(path, state_of(2, 10_000))
    except OSError as error:
        return [type(error).__name__, str(error.errno), str(complete_step(path)), *sorted(os.listdir(folder))]
    return ["saved"]


def save_as_nobody(path: str) -> None:
    """Save without the rights of root, whom no folder is read-only to."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    portable.save(path, state_of(2))


FUNCTIONS = (kill_while_saving, save_as_nobody, save_many, save_to_full_disk, save_with_file_size_limit)

if __name__ == "__main__":
    function = next(function for function in FUNCTIONS if function.__name__ == sys.argv[1])
    print(json.dumps(function(*sys.argv[2:])))  # type: ignore[operator]
