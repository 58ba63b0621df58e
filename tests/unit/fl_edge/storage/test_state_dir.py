"""An edge's own directory contains nothing that leads elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fl_edge.storage.state_dir import StateDir
from fl_shared.errors import UserError
from fl_shared.system.file_lock import FileLock


@pytest.mark.parametrize("name", ["device", "update.safetensors", "lock"])
def test_a_link_is_refused_and_its_target_stays(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"state directory {tmp_path / 'state'}: "):
        StateDir.open(tmp_path / "state")
    assert victim.read_text() == "precious"


def test_one_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(UserError, match="other users can write to it"):
        StateDir.open(tmp_path / "state")


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".fl-0123456789abcdef.tmp").write_bytes(b"half of it")
    with StateDir.open(tmp_path) as state:
        assert sorted(file.name for file in tmp_path.iterdir()) == ["device", "lock"]
        device = state.device
    with StateDir.open(tmp_path) as state:
        assert state.device == device


def test_a_name_that_a_power_failure_has_emptied_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(b"")
    with StateDir.open(tmp_path, sync=False) as state:
        device = state.device
    assert len(device) == 32
    with StateDir.open(tmp_path) as state:
        assert state.device == device


def test_the_directory_of_a_run_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="is the directory of a run"):
        StateDir.open(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_full_disk_is_said_with_the_path_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_lock: FileLock, _text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileLock, "write", full)
    with pytest.raises(UserError) as refused:
        StateDir.open(tmp_path)
    assert str(refused.value) == f"state directory {tmp_path}: No space left on device"
