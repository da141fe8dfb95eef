"""The tiers of the suite, of which every test has one: by mark, or "default" without.

"fast" is part of what "default" runs, and both are part of "nightly"; "gpu" stands apart. What each is for is in
docs/contributing.md, what of the matrix each holds in `matrix/rows.py`.
"""

import pytest

MARKED = ("fast", "nightly", "gpu")

SELECT = {
    "fast": "fast",
    "default": "not nightly and not gpu",
    "nightly": "not gpu",
    "gpu": "gpu",
}
"""By tier: pytest's ``-m`` expression."""


def tier_of(item: pytest.Item) -> str:
    """Return the tier of a test.

    Raises:
        pytest.UsageError: if it has two, so that nobody can say which runs it.
    """
    marks = {mark.name for mark in item.iter_markers() if mark.name in MARKED}
    if len(marks) > 1:
        raise pytest.UsageError(f"{item.nodeid} is marked {' and '.join(sorted(marks))}; a test has one tier")
    return marks.pop() if marks else "default"
