"""Write the tables and figures of the pages on training, docs/training*.md, from the stored results.

The page's text is written by hand; what stands between <!-- generated NAME --> and <!-- end --> is made here.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training import figures, report_carried, report_free, report_short, report_sweeps
from benchmarks.training.results import Store

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = (CHECKOUT / "README.md", *(DOCS / f"training{part}.md" for part in ("", "_carried", "_short_runs")))
FIGURES = DOCS / "figures"
BLOCK = re.compile(r"(<!-- generated ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts of the pages by name."""
    reports = (report_short, report_sweeps, report_carried, report_free)
    return {name: block for report in reports for name, block in report.blocks(store).items()}


def rendered(page: str, parts: dict[str, str]) -> str:
    """Return a page with its generated parts made anew.

    Raises:
        KeyError: if the page asks for a part that is not made.
    """
    return BLOCK.sub(lambda found: found[1] + parts[found[2]] + found[3], page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training-report", description=__doc__)
    parser.parse_args(arguments)
    store = Store()
    parts = blocks(store)
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    for path in figures.draw(store, FIGURES):
        print(path.relative_to(CHECKOUT))
    return 0
