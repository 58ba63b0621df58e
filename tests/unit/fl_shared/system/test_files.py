"""Files that are complete or absent, and files in a directory that somebody else may have made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fl_shared.system import files


def test_no_link_that_waits_beside_a_file_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if somebody guesses the random name."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "run.json"
    (tmp_path / "run.json.part").symlink_to(victim)
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    guessed = tmp_path / ".fl-0123456789abcdef.tmp"
    guessed.symlink_to(victim)
    monkeypatch.setattr(files, "temporary_path", lambda _path: guessed)
    with pytest.raises(FileExistsError):
        files.write_atomically(path, b"newer", private=True)
    assert victim.read_text() == "precious"
    assert path.read_bytes() == b"new"


def test_a_private_file_is_never_readable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    path.write_bytes(b"old")
    path.chmod(0o644)
    files.write_private(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["kit.zip"]


def test_a_crashed_process_leaves_what_the_next_one_deletes_and_nothing_else_goes(tmp_path: Path) -> None:
    left = files.temporary_path(tmp_path / "model.safetensors")
    left.write_bytes(b"half of it")
    kept = {"notes.tmp", ".fl-0123.tmp", "model.safetensors.part", ".fl-0123456789abcdef.tmp.txt"}
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".fl-aaaaaaaaaaaaaaaa.tmp").mkdir()
    files.delete_temporary_files(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == kept | {".fl-aaaaaaaaaaaaaaaa.tmp"}


def test_links_pipes_devices_and_directories_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "link", "symbolic link"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(OSError, match=said):
            files.read_regular(path, 10)
        with pytest.raises(OSError, match=said):
            list(files.read_lines(path))
    assert files.read_regular(tmp_path / "file", 1) == b"x"


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 4)
    path = tmp_path / "file"
    path.write_bytes(b"abc\nabcd")
    assert list(files.read_lines(path)) == [b"abc\n", b"abcd"]
    path.write_bytes(b"abc\nabcde")
    with pytest.raises(OSError, match="line of more than 4 bytes"):
        list(files.read_lines(path))
    with pytest.raises(OSError, match="larger than 8 bytes"):
        files.read_regular(path, 8)
