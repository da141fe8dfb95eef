"""The API reference documents every public name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {path.parent.name: path for path in [ROOT / "inna_core/__init__.py", *ROOT.glob("adapters/*/__init__.py")]}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_public_name_is_on_its_page(package: str) -> None:
    page = ROOT / "docs" / "api" / f"{package.removeprefix('inna_')}.md"
    if not page.parent.exists():
        pytest.skip("the docs are not here")
    tree = ast.parse(PACKAGES[package].read_text(encoding="utf-8"))
    assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
    (names,) = (ast.literal_eval(node.value) for node in assignments if ast.unparse(node.targets[0]) == "__all__")
    directives = re.findall(r"^(?:\.\. auto|   :members:).*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    listed = set(re.findall(r"\w+", "\n".join(directives)))
    assert set(names) - listed == {"__version__"}
