"""A short summary of a run, in Markdown, to be pasted into docs: what ran, on which device, how each host fared."""

import importlib
import importlib.util
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from conformance_tests.matrix.table import HOSTS

OUTCOMES = ("passed", "failed", "error", "skipped")


def machine() -> str:
    """Return the device and the versions of what is installed."""
    found = [f"Python {platform.python_version()}"]
    installed = filter(importlib.util.find_spec, ("torch", "jax", "cupy", "keras", "tensorflow"))
    found += [f"{name} {importlib.import_module(name).__version__}" for name in installed]
    if importlib.util.find_spec("torch") is not None:
        torch: Any = importlib.import_module("torch")
        if torch.cuda.is_available():
            found.insert(0, f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return ", ".join(found)


def host_of(test: str, names: Iterable[str]) -> str:
    """Return the host in the brackets of a test's id, or its file."""
    inside = test.partition("[")[2]
    fitting = [name for name in names if re.match(rf"{re.escape(name)}(?![\w])", inside)]
    return max(fitting, key=len, default=test.partition("::")[0].removeprefix("conformance_tests/"))


def table(reports: Sequence[tuple[str, str, float]]) -> Iterator[str]:
    """Yield the lines of a table of hosts from (outcome, test, seconds)."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    for outcome, test, duration in reports:
        host = host_of(test, [host.name for host in HOSTS])
        counts[host][outcome] += 1
        seconds[host] += duration  # type: ignore[assignment]
    yield f"| host | {' | '.join(OUTCOMES)} | seconds |"
    yield f"|---|{'---|' * (len(OUTCOMES) + 1)}"
    for host, found in counts.items():
        yield f"| {host} | {' | '.join(str(found[outcome]) for outcome in OUTCOMES)} | {seconds[host]:.0f} |"
    total = sum(counts.values(), Counter[str]())
    all_seconds = sum(seconds.values())
    yield f"| all | {' | '.join(str(total[outcome]) for outcome in OUTCOMES)} | {all_seconds:.0f} |"
