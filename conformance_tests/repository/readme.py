"""README's examples, to be run as they are written."""

import contextlib
import re
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def examples(module: str) -> list[str]:
    """Return the examples that import from a module."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if f"from {module} import" in block]


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
