"""Every test is in one tier, and nox has a session for each."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ONE_EACH = """
import pytest

@pytest.mark.fast
def test_fast(): ...

def test_default(): ...

@pytest.mark.nightly
def test_nightly(): ...

@pytest.mark.gpu
def test_gpu(): ...
"""

TWO = """
import pytest

@pytest.mark.fast
@pytest.mark.nightly
def test_of_two_tiers(): ...
"""

GROUPS = """
import os
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("k", range(4))
def test_of_a_group(k):
    with open("workers", "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)

@pytest.mark.parametrize("k", range(4))
def test_of_no_group(k): ...
"""

ABSENT = """
import pytest

pytest.importorskip("no_such_package", reason="a package is missing")
"""

RUNS = {
    "fast": {"fast"},
    "default": {"fast", "default"},
    "nightly": {"fast", "default", "nightly"},
    "gpu": {"gpu"},
}
"""By tier: what it runs."""


def collect(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Collect a file as the suite would."""
    (folder / "test_file.py").write_text(text, encoding="utf-8")
    plugin = ("-p", "conformance_tests.conftest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *plugin, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, "test_file.py"], cwd=folder, capture_output=True, text=True, env=env)


def expressions() -> dict[str, str]:
    """Return what the noxfile selects by."""
    if not (ROOT / "noxfile.py").exists():
        pytest.skip("the noxfile is not here")
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (tiers,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TIERS"
    )
    return ast.literal_eval(tiers)


@pytest.mark.parametrize("tier", RUNS)
def test_a_session_runs_its_tier(tier: str, tmp_path: Path) -> None:
    found = collect(tmp_path, ONE_EACH, "-m", expressions()[tier]).stdout
    assert {name for name in ("fast", "default", "nightly", "gpu") if f"test_{name}" in found} == RUNS[tier]


def test_pytest_alone_runs_the_default_tier(tmp_path: Path) -> None:
    found = collect(tmp_path, ONE_EACH).stdout
    assert {name for name in ("fast", "default", "nightly", "gpu") if f"test_{name}" in found} == RUNS["default"]


def test_two_tiers_are_refused(tmp_path: Path) -> None:
    found = collect(tmp_path, TWO, "-m", "")
    assert found.returncode != 0
    assert "test_of_two_tiers is marked fast and nightly; a test has one tier" in found.stdout + found.stderr


def test_a_group_runs_on_one_worker(tmp_path: Path) -> None:
    """Pytest and pytest-xdist agree on what a group is; where they do not, nothing fails, but all takes longer."""
    (tmp_path / "test_file.py").write_text(GROUPS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    subprocess.run([*command, "test_file.py"], cwd=tmp_path, capture_output=True, check=True)
    workers = (tmp_path / "workers").read_text(encoding="utf-8").split()
    assert len(workers) == 4
    assert len(set(workers)) == 1


def test_a_summary_counts_files_that_are_skipped(tmp_path: Path) -> None:
    found = collect(tmp_path, ABSENT, "--summary")
    assert "| test_file.py | 0 | 0 | 0 | 1 | 0 |" in found.stdout, found.stderr


@pytest.mark.nightly
def test_the_page_shows_the_present_coverage() -> None:
    if not (page := ROOT / "docs" / "conformance.md").exists():
        pytest.skip("the docs are not here")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
    command = [sys.executable, "-m", "conformance_tests.coverage"]
    printed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert printed.strip() in page.read_text(encoding="utf-8")
