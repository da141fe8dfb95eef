"""The examples of README and of pages of the docs, to be run as they are written."""

import contextlib
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    *(
        f"docs/{page}.md"
        for page in (
            *("choosing", "coming_from", "dynamics", "keras", "momentum"),
            *("monitoring", "newton_summary", "optax", "scipy", "torch"),
        )
    ),
)
"""All but docs/contributing.md, whose example has a test of its own."""

BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
]


def module_of(block: str) -> str | None:
    """Return the module of ours that an example imports; the host's, where it imports the core too."""
    imported = re.findall(r"^(?:from|import) (inna_\w+)", block, re.MULTILINE)
    return max(imported, key=lambda module: module != "inna_core", default=None)


def examples(module: str) -> list[str]:
    """Return the examples of a module."""
    return [block for block in BLOCKS if module_of(block) == module]


def run(module: str) -> None:
    """Run a module's examples, as they are when they are pasted."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for code in examples(module):
            exec(code, {})


EXAMPLES = {
    "numpy": "inna_core",
    "scipy": "inna_scipy",
    "torch": "inna_torch",
    "optax": "inna_optax",
    "keras-tensorflow": "inna_keras",
    "keras-jax": "inna_keras",
    "keras-torch": "inna_keras",
}
"""By host: the module whose example runs there."""
