"""Whatever happens during a save, the path holds a complete state, the old one or the new one."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="safetensors is not installed")
if os.name != "posix":
    pytest.skip("processes are forked and limited here", allow_module_level=True)

from conformance_tests.portable.savers import complete_step, state_of
from inna_core import portable
from inna_core.portable import file as portable_file


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "conformance_tests.portable.savers", *map(str, arguments)]


def start(*arguments: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command(*arguments), env=env, text=True, stdout=-1, stderr=-1)


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.parametrize("n", [30, pytest.param(500, marks=pytest.mark.nightly)])
def test_killed_saves_leave_a_complete_state(n: int, tmp_path: Path) -> None:
    found = result(start("kill_while_saving", tmp_path / "state", n, 1))
    print(found)
    assert not found["wrong"]
    assert found["interrupted"] >= n // 10  # in the middle of a save, rather than between two


def test_two_processes_that_save_to_one_path_leave_one_complete_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    portable.save(path, state_of(0))
    processes = [start("save_many", path, first, 40) for first in (1000, 2000)]
    steps_read = set()
    while any(process.poll() is None for process in processes):
        steps_read.add(complete_step(str(path)))
    for process in processes:
        result(process)
    assert complete_step(str(path)) in (1039, 2039)
    assert len(steps_read) > 2
    assert os.listdir(tmp_path) == ["state"]


def test_a_file_that_grows_too_large_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    portable.save(path, state_of(1))
    _, err = (process := start("save_with_file_size_limit", path)).communicate(timeout=60)
    assert process.returncode == 1
    assert f"OSError: [Errno {errno.EFBIG}]" in err
    assert complete_step(str(path)) == 1
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.nightly
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        ["unshare", "-m", *command("save_to_full_disk", tmp_path)], env=env, capture_output=True, text=True
    )
    if "mount:" in done.stderr:
        pytest.skip("no tmpfs can be mounted here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["OSError", str(errno.ENOSPC), "1", "other", "state"]


def test_a_read_only_folder_leaves_the_old_file(tmp_path: Path) -> None:
    portable.save(tmp_path / "state", state_of(1))
    modes = {folder: folder.stat().st_mode for folder in tmp_path.parents if "pytest" in str(folder)}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o055)  # pytest makes them for its user alone
    tmp_path.chmod(0o555)
    try:
        _, err = (process := start("save_as_nobody", tmp_path / "state")).communicate(timeout=60)
    finally:
        tmp_path.chmod(0o755)
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert process.returncode == 1
    assert "PermissionError" in err
    assert complete_step(str(tmp_path / "state")) == 1


def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.fast
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [fail, interrupt])
def test_a_save_that_raises_leaves_the_old_file_alone(
    call: str, failure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    portable.save(path, state_of(1, 10))
    with monkeypatch.context() as patch:
        patch.setattr(portable_file.os, call, failure)
        with pytest.raises((OSError, KeyboardInterrupt)):
            portable.save(path, state_of(2, 10))
    assert complete_step(str(path)) == 1
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.fast
def test_a_missing_folder_and_a_folder_as_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        portable.save(tmp_path / "none" / "state", state_of(1, 10))
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        portable.save(tmp_path / "folder", state_of(1, 10))
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.fast
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    portable.save(tmp_path / "link", state_of(1, 10))
    assert (tmp_path / "link").is_symlink()
    assert complete_step(str(tmp_path / "state")) == 1
