"""Docstrings are written to be read in the source; this makes reStructuredText of their equations and tables."""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

CELL = re.compile(r"(?<!\\)\|")
CODE = re.compile(r"(``.+?``|`[^`]+`)")


def escaped(line: str) -> str:
    """Return a line in which bars and trailing underscores outside of code mean themselves."""
    parts = CODE.split(line)
    parts[::2] = [re.sub(r"\\?\|", r"\\|", re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)) for part in parts[::2]]
    return "".join(parts)


def table(rows: list[str]) -> list[str]:
    """Return a Markdown table as a list-table."""
    cells = [[escaped(cell.strip()) for cell in CELL.split(row.strip().strip("|"))] for row in rows]
    if not any(cells[0]):  # no words in the header
        del cells[0], cells[0]
        header = 0
    else:
        del cells[1]
        header = 1
    lines = [".. list-table::", f"   :header-rows: {header}", ""]
    for row in cells:
        lines += [f"   {'* ' if i == 0 else '  '}- {cell}" for i, cell in enumerate(row)]
    return ["", *lines, ""]


def converted(lines: list[str], indented_is_literal: bool) -> Iterator[str]:
    """Yield a docstring's lines, with tables and, on request, indented blocks in the syntax that Sphinx reads."""

    def kind(line: str) -> str:
        if line.startswith("|"):
            return "table"
        return "indented" if indented_is_literal and line.startswith("    ") else "text"

    example = False
    for name, block in groupby(lines, kind):
        if name == "table":
            yield from table(list(block))
        elif name == "indented":
            yield from ["", "::", "", *block, ""]
        else:
            for line in block:
                example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
                yield line if example else escaped(line)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(converted(lines, indented_is_literal=what == "module"))


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of NamedTuples, which their classes describe, and what an algorithm tells its hosts."""
    is_field = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field or name in ("algorithm", "state_type") else None


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, found: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Return the constructor's signature for a class whose base, of a host that is not installed, hides it."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    if what != "class" or found != "(*args, **kwargs)":
        return None
    _, *parameters = inspect.signature(obj.__init__).parameters.values()
    shown = inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters])
    return str(shown), None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
