"""Fixtures: a host of the matrix, the processes that hosts live in, and the rule that a required host must be there."""

import os

# These are read when NumPy, JAX and TensorFlow are imported, so they come before everything else.
os.environ.setdefault("JAX_ENABLE_X64", "1")  # the suite compares float64 trajectories
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # GPUs would round the factors to ten bits
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the arrays are tiny: threads would only wait for each other

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance_tests import summary
from conformance_tests.backend_process import Worker, open_here
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.hosts.run import Run
from conformance_tests.matrix.rows import PROCESSES
from conformance_tests.matrix.table import HOSTS
from conformance_tests.packages import skip_without
from conformance_tests.tiers import tier_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="fail, rather than skip, where this package (an import name) is missing; repeatable",
    )
    parser.addoption("--summary", action="store_true", help="end with a table of hosts in Markdown")


def pytest_configure(config: pytest.Config) -> None:
    import importlib.util

    absent = [name for name in (config.getoption("--require") or []) if importlib.util.find_spec(name) is None]
    if absent:
        raise pytest.UsageError(f"--require: not installed: {', '.join(absent)}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    missing = {host.name: host.missing() for host in HOSTS}
    present = [name for name, why in missing.items() if why is None]
    return [f"hosts: {', '.join(present)}", *(f"no {name}: {why}" for name, why in missing.items() if why)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--summary"):
        terminalreporter.section("summary")
        stats = {outcome: terminalreporter.stats.get(outcome, []) for outcome in summary.OUTCOMES}
        reports = [(name, report) for name, found in stats.items() for report in found]
        # a file that is skipped, or that cannot be imported, has no duration
        rows = [(name, report.nodeid, getattr(report, "duration", 0.0)) for name, report in reports]
        for line in (summary.machine(), "", *summary.table(rows)):
            terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier_of(item)  # raises where there are two
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group_of_item(item)))


def group_of_item(item: Any) -> str:
    """Return the group of what asks for processes of backends, or the file, whose fixtures are made once a worker."""
    return PROCESSES if "workers" in item.fixturenames else item.path.stem


@pytest.fixture(scope="session")
def workers() -> Iterator[Callable[[dict[str, str]], Worker]]:
    """Processes by environment, started when first asked for."""
    started: dict[tuple[Any, ...], Worker] = {}

    def get(env: dict[str, str]) -> Worker:
        key = tuple(sorted(env.items()))
        if key not in started:
            started[key] = Worker(env)
        return started[key]

    yield get
    for worker in started.values():
        worker.close()


@pytest.fixture(scope="session")
def on_keras(workers: Callable[[dict[str, str]], Worker]) -> Callable[..., Any]:
    """Call a function of the suite ("package.module:function") in a process with a Keras backend."""

    def on_keras(backend: str, function: str, *arguments: Any) -> Any:
        skip_without("keras", backend)
        return workers({"KERAS_BACKEND": backend}).call(f"conformance_tests.{function}", *arguments)

    return on_keras


@pytest.fixture
def open_run(workers: Callable[[dict[str, str]], Worker]) -> Callable[..., Run]:
    """Open a run of a host, in its own process where it has one."""

    def open_run(host: Host, setup: Any, params: Any) -> Run:
        if why := host.missing():
            pytest.skip(f"{host.name}: {why}")
        return workers(host.env).open(host, setup, params) if host.env else open_here(host, setup, params)

    return open_run
