"""A lock is held by one process at a time, although its holder deletes the file."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from fl_shared.system.file_lock import FileLock

TAKINGS = 2_000


def test_it_is_held_once_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path)
    with pytest.raises(BlockingIOError):
        FileLock(path)
    first.write("17\n")
    first.write("8\n")
    assert path.read_text() == "8\n"
    first.release(delete=True)
    assert not path.exists()
    FileLock(path).release()
    assert path.exists()


def test_the_lock_of_a_file_that_was_deleted_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder deletes the file and releases it, and a third process locks the next one, while we wait."""
    path = tmp_path / "lock"
    holder = FileLock(path)
    others: list[FileLock] = []
    flock = fcntl.flock

    def late(file: int, operation: int) -> None:
        if not others:
            others.append(holder)
            holder.release(delete=True)
            others.append(FileLock(path))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BlockingIOError):
        FileLock(path)
    others[1].release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(OSError, match=str(tmp_path / "lock")):
        FileLock(tmp_path / "lock")
    assert target.read_text() == "untouched"


def take(directory: Path) -> int:
    """Takes and releases the lock again and again; the number of times that another process had it as well."""
    twice = 0
    for _ in range(TAKINGS):
        try:
            lock = FileLock(directory / "lock")
        except BlockingIOError:
            continue
        try:
            held = os.open(directory / "held", os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            twice += 1
        else:
            os.close(held)
            (directory / "held").unlink()
        lock.release(delete=True)
    return twice


def test_processes_that_take_it_at_the_same_time(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(take, [tmp_path] * 3) == [0, 0, 0]
