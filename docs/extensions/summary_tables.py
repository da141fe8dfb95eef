"""Pages of the API reference begin with a table of the names that they document, with one line on each."""

import re
from collections.abc import Iterator
from typing import Any

DOCUMENTED = re.compile(r"^\.\. automodule:: (\S+)\n   :members: (.+)$|^\.\. autoclass:: (\S+)$", re.MULTILINE)


def documented(page: str) -> Iterator[str]:
    """Yield the full names that a page's autodoc directives ask for, in order."""
    for module, members, single in DOCUMENTED.findall(page):
        yield from (f"{module}.{name.strip()}" for name in members.split(",")) if module else [single]


def insert_table(app: Any, docname: str, source: list[str]) -> None:
    """Put the table before the first heading of second level."""
    if not docname.startswith("api/"):
        return
    top, heading, rest = source[0].partition("\n## ")
    names = "".join(f"   ~{name}\n" for name in documented(source[0]))
    table = f"\n```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n\n{names}```\n"
    source[0] = top + table + heading + rest


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", insert_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
