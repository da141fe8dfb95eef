"""Prints what is tested, as Markdown: host by algorithm by property, with the tier in which each runs first.

python -m conformance_tests.coverage [--write docs/conformance.md]
"""

import argparse
import contextlib
import io
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.table import ALGORITHMS, HOSTS
from conformance_tests.tiers import tier_of

MATRIX = Path(__file__).parent / "matrix"
TIERS = ("fast", "default", "nightly", "gpu")
BEGIN, END = "<!-- generated coverage -->", "<!-- end -->"


class Collected:
    """A plugin that keeps what pytest has collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = list(items)


def collected() -> list[Any]:
    """Return the tests of the matrix, of all tiers."""
    plugin = Collected()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-n", "0", "-m", "", str(MATRIX)], plugins=[plugin])
    return plugin.items


def algorithm_of(params: dict[str, Any], test: Any) -> str | None:
    """Return the algorithm of a test of a host: its own, its case's, or the one that the file is about."""
    if (algorithm := params.get("algorithm")) is not None:
        return algorithm.name
    case = params.get("case")
    return case.algorithm if case is not None else getattr(test.module, "ALGORITHM", None)


def lines(items: list[Any]) -> list[str]:
    """Return the table: a line a host, a column a property, in it the first tier of each algorithm, or "-" """
    found: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    properties: list[str] = []
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        host, name = params.get("host"), item.originalname.removeprefix("test_").replace("_", " ")
        if not isinstance(host, Host):
            continue
        if name not in properties:
            properties.append(name)
        algorithm = algorithm_of(params, item)
        assert algorithm is not None, f"{item.nodeid}: which algorithm is it about?"
        found[host.name, algorithm, name].add(tier_of(item))

    def cell(host: str, name: str) -> str:
        first = (
            next((tier[0] for tier in TIERS if tier in found[host, algorithm.name, name]), "-")
            for algorithm in ALGORITHMS
        )
        return " ".join(first)

    names = ", ".join(algorithm.name for algorithm in ALGORITHMS)
    return [
        f"In each cell {names}: f runs in the fast tier, d in the default tier, n nightly, g where there is a GPU; "
        "- not at all.",
        "",
        *(f"{number}. {name}" for number, name in enumerate(properties, 1)),
        "",
        f"| host | {' | '.join(str(number) for number, _ in enumerate(properties, 1))} |",
        f"|---|{'---|' * len(properties)}",
        *(f"| {host.name} | {' | '.join(cell(host.name, name) for name in properties)} |" for host in HOSTS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    page = parser.parse_args().write
    table = "\n".join(lines(collected()))
    if page is None:
        sys.stdout.write(table + "\n")
        return
    above, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, below = rest.partition(END)
    page.write_text(f"{above}{BEGIN}\n{table}\n{END}{below}", encoding="utf-8")


if __name__ == "__main__":
    main()
