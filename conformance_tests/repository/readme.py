"""The examples of README and of docs/momentum.md, to be run as they are written."""

import contextlib
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    block
    for page in ("README.md", "docs/momentum.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
]


def examples(module: str) -> list[str]:
    """Return the examples that import from a module."""
    return [block for block in BLOCKS if re.search(rf"^(from|import) {module}\b", block, re.MULTILINE)]


def run(module: str) -> None:
    """Run a module's examples, as they are when they are pasted."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for code in examples(module):
            exec(code, {})


EXAMPLES = {
    "numpy": "inna_core",
    "torch": "inna_torch",
    "optax": "inna_optax",
    "keras-tensorflow": "inna_keras",
    "keras-jax": "inna_keras",
    "keras-torch": "inna_keras",
}
"""By host: the module whose example runs there."""
