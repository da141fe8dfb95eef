"""The tiers of the suite, of which every test has one: by mark, or "default" without.

"fast" is part of what "default" runs, and these two are part of "nightly"; "gpu" stands apart. What each is for is in
docs/contributing.md, what of the matrix each holds in `matrix/rows.py`.
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

MARKED = ("fast", "nightly", "gpu")


def tier_of(item: Any) -> str:
    """Return the tier of a test of pytest's.

    Raises:
        ValueError: if it has two, so that nobody can say which runs it.
    """
    marks = {mark.name for mark in item.iter_markers() if mark.name in MARKED}
    if len(marks) > 1:
        raise ValueError(f"{item.nodeid} is marked {' and '.join(sorted(marks))}; a test has one tier")
    return marks.pop() if marks else "default"


def nightly_but(kept: Collection[str], names: Iterable[str]) -> list[Any]:
    """Return names as parameters of a test, all nightly but those that are kept in the default tier.

    Raises:
        ValueError: if one that is kept is none of them.
    """
    names = list(names)
    if unknown := set(kept) - set(names):
        raise ValueError(f"Invalid kept: {sorted(unknown)} (expected some of {names})")
    return [name if name in kept else pytest.param(name, marks=pytest.mark.nightly) for name in names]
