"""The worked example of docs/contributing.md, applied to a copy of the checkout, passes the matrix on every host."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance_tests.matrix.table import HOSTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "contributing.md"
PARTS = ("inna_core", "adapters", "conformance_tests", "pyproject.toml")

BLOCK = re.compile(
    r"^(?P<how>Create|Append to|Add to `ALGORITHMS` in) `(?P<path>[\w/.]+)`[^\n]*:\n\n```python\n(?P<code>.*?)```\n",
    re.MULTILINE | re.DOTALL,
)


def applied(text: str, how: str, code: str) -> str:
    """Return a file's text with a block of the page in it."""
    if how == "Append to":
        return f"{text}\n\n{code}"
    if how == "Create":
        assert not text
        return code
    rows, end, rest = text.partition("\n)\n\nCASES")
    assert end
    return f"{rows}\n{code.rstrip()},{end}{rest}"


@pytest.mark.nightly
@pytest.mark.parametrize("tier", ["fast", "not fast and not nightly and not gpu"])
def test_heavy_ball_passes_on_every_host(tier: str, tmp_path: Path) -> None:
    if not PAGE.exists():
        pytest.skip("the docs are not here")
    for part in PARTS:
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, tmp_path / part)
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(blocks) == PAGE.read_text(encoding="utf-8").count("```python")
    for block in blocks:
        path = tmp_path / block["path"]
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(applied(before, block["how"], block["code"]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-p", "no:cacheprovider", "-n", "0", "-m", tier]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "adapters")])}
    done = subprocess.run(
        [*command, "-k", "HeavyBall or heavy_ball", "conformance_tests/matrix"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    hosts = [host for host in HOSTS if host.missing() is None]
    assert int(found[1]) > 5 * len(hosts)
