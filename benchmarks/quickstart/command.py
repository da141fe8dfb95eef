"""Train the same small network with INNA on every installed host, print a table and draw a picture.

Exit status: 0 if every host that ran kept the bounds; 1 if one left them, crashed, or was named in --hosts and did not
run; 2 if an argument is wrong.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.quickstart import picture
from benchmarks.quickstart.bounds import deviations, violations
from benchmarks.quickstart.problem import EPOCHS, Problem, digits
from benchmarks.quickstart.processes import CrashError, Trajectory, run
from benchmarks.quickstart.recording import EVERY, UnavailableError
from benchmarks.quickstart.rows import HOSTS, REFERENCE, Host

MOST_EPOCHS = 1000
CAPTION = f"""\
training loss: mean of the last epoch; seconds: training, with compilation, without imports; deviation: largest
max|theta - theta_{REFERENCE.name}| / max|theta_{REFERENCE.name}| in float64, looked at every {EVERY} steps"""


@dataclass
class Results:
    """What came of the hosts: a trajectory each, or a line that begins with the host's name."""

    trajectories: list[Trajectory] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line, by default this process'.

    Returns:
        The exit status.
    """
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    # Everything is measured against the reference, so it runs whether or not it was asked for.
    hosts = [h for h in HOSTS if h is REFERENCE or not options.hosts or h.name in options.hosts]
    results = train(hosts, digits(options.epochs), console)
    for line in results.absent.values():
        say(console, line)
    failures = results.failures + [f"{name}: asked for, did not run" for name in results.absent if options.hosts]

    reference = next((t for t in results.trajectories if t.host == REFERENCE.name), None)
    if reference is not None:
        console.print(table(results.trajectories, reference))
        say(console, CAPTION)
        path = options.out / "quickstart.png"
        picture.draw(results.trajectories, reference, path)
        say(console, f"Loss curves and deviations: {path}")
        failures += [line for trajectory in results.trajectories for line in violations(trajectory, reference)]
    for line in failures:
        say(console, f"FAILED {line}", style="red")
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line, or exit with status 2 and a message that names the wrong one."""
    names = [host.name for host in HOSTS]

    def hosts(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        unknown = [name for name in chosen if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(map(repr, unknown))} (expected some of {','.join(names)})")
        return chosen

    def count(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= MOST_EPOCHS:
            raise argparse.ArgumentTypeError(f"{text!r} (expected a whole number from 1 to {MOST_EPOCHS})")
        return int(text)

    def folder(text: str) -> Path:
        path = Path(text)
        if path.exists() and not path.is_dir():
            raise argparse.ArgumentTypeError(f"{text!r} (expected a folder, or a name that is free for one)")
        return path

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quickstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=folder, default="quickstart-results", help="folder for the picture (%(default)s)")
    parser.add_argument("--hosts", type=hosts, help=f"some of {','.join(names)} (all that are installed)")
    parser.add_argument(
        "--epochs", type=count, default=EPOCHS, help="of training (%(default)s); too few miss the bound on the accuracy"
    )
    return parser.parse_args(arguments)


def train(hosts: Sequence[Host], problem: Problem, console: Console) -> Results:
    """Train on one host after the other, so that each has the machine to itself, under one progress bar.

    Args:
        hosts: rows of the hosts.
        problem: what they train on.
        console: where the bar is shown.
    """
    missing = {host.name: host.missing() for host in hosts}
    present = [host for host in hosts if not missing[host.name]]
    results = Results(absent={name: line for name, line in missing.items() if line})
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Long enough an average that the pauses in which a host is imported count in the time left.
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        bar = progress.add_task("", total=problem.steps * len(present))
        for i, host in enumerate(present):
            done = i * problem.steps
            progress.update(bar, description=host.name, completed=done)
            try:
                trajectory = run(host, problem, lambda step, done=done: progress.update(bar, completed=done + step))
                results.trajectories.append(trajectory)
            except UnavailableError as reason:
                results.absent[host.name] = f"{host.name}: not on this machine — {reason}"
            except CrashError as error:
                results.failures.append(f"{host.name}: {error}")
        progress.update(bar, description="done", completed=problem.steps * len(present))
    return results


def table(trajectories: Sequence[Trajectory], reference: Trajectory) -> Table:
    """Return the table of results."""
    result = Table(title="INNA on scikit-learn's digits")
    result.add_column("host", no_wrap=True)
    result.add_column("device")
    for heading in ("training loss", "test accuracy", "seconds", "deviation"):
        result.add_column(heading, justify="right")
    for t in trajectories:
        deviation = "reference" if t is reference else f"{np.max(deviations(t, reference)):.1e}"
        result.add_row(t.host, t.device, f"{t.losses[-1]:.6f}", f"{t.accuracy:.2%}", f"{t.seconds:.2f}", deviation)
    return result


def say(console: Console, line: str, style: str = "") -> None:
    # File names and messages of others may look like markup, and are easier to copy when they are not folded.
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
