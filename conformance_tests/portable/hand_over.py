"""Where runs of the network are handed over, and the table of all hand-overs.

python -m conformance_tests.portable.hand_over
"""

import argparse
import os
import tempfile

from conformance_tests.backend_process import Worker
from conformance_tests.portable import network
from conformance_tests.portable.network import TRAININGS, Leg, Training

HALF, END = 50, 100

HOSTS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "arrays": ("arrays", (), {}),
    "torch": ("torch", ("torch",), {}),
    "optax": ("optax", ("jax", "optax"), {}),
    "keras-tensorflow": ("keras", ("keras", "tensorflow"), {"KERAS_BACKEND": "tensorflow"}),
    "keras-jax": ("keras", ("keras", "jax"), {"KERAS_BACKEND": "jax"}),
    "keras-torch": ("keras", ("keras", "torch"), {"KERAS_BACKEND": "torch"}),
}
"""By name: framework, packages, environment of a process of its own."""


def module_of(host: str) -> str:
    return f"conformance_tests.portable.{HOSTS[host][0]}_host"


def table(training: Training, workers: dict[str, Worker], folder: str) -> list[str]:
    """Return a table in Markdown: relative errors of runs saved by the row's host and ended by the column's."""
    uninterrupted = workers["arrays"].call(f"{module_of('arrays')}:run", Leg(training, 0, END))
    lines = [f"| {training.algorithm}, from \\ to | {' | '.join(HOSTS)} |", "|---" * (len(HOSTS) + 1) + "|"]
    for source, (framework, _, _) in HOSTS.items():
        path = os.path.join(folder, f"{training.algorithm}-{source}.safetensors")
        workers[source].call(f"{module_of(source)}:run", Leg(training, 0, HALF, save=path))
        leg = Leg(training, HALF, END, load=path, source=framework)
        ends = [worker.call(f"{module_of(target)}:run", leg) for target, worker in workers.items()]
        lines.append(
            f"| {source} | {' | '.join(f'{network.relative_error(end, uninterrupted):.1e}' for end in ends)} |"
        )
    return lines


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ.update(JAX_ENABLE_X64="1", TF_CPP_MIN_LOG_LEVEL="2")
    workers = {host: Worker(env) for host, (_, _, env) in HOSTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        for training in TRAININGS.values():
            print("\n".join([*table(training, workers, folder), ""]), flush=True)
    for worker in workers.values():
        worker.close()
