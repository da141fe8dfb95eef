"""How numbers and tables are written in the pages."""

import math
from collections.abc import Callable, Sequence

from benchmarks.training.scores import Spread


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Return three significant digits, and one more from 1 to 10, where losses lie close together."""
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.3f}" if 1 <= value < 10 else f"{value:.3g}"


def percent(part: float) -> str:
    """Return a part in per cent, with its sign; one that is not finite is of a loss that was not reached."""
    return f"{100 * part:+.0f} %".replace("-", "−") if math.isfinite(part) else "not reached"


def ranged(spread: Spread, digits: Callable[[float], str] = number) -> str:
    """Return the median of the seeds, and the least and the greatest."""
    return f"{digits(spread.median)} ({digits(spread.low)} … {digits(spread.high)})"
