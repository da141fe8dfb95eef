"""The largest of some numbers, for comparisons that must fail where one of them is NaN."""

from collections.abc import Iterable

import numpy as np


def largest(numbers: Iterable[float]) -> float:
    """Return the largest number, 0 of none; NaN where one is NaN, which Python's `max` would pass over."""
    return float(np.max([*numbers], initial=0.0))
