"""Room on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fl_aggregator.storage.disk_space import DiskFull, has_space, raising_disk_full


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_lack_of_room_says_for_what_and_where(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull) as caught, raising_disk_full(1_700_000, tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"disk full: {tmp_path}: needs 1.7 MB"
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path))
    with pytest.raises(DiskFull, match="needs"), raising_disk_full(5, tmp_path.parent):
        raise caught.value


def test_other_errors_are_not_a_lack_of_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, raising_disk_full(5, tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, DiskFull)
    with pytest.raises(FileNotFoundError):
        has_space(tmp_path / "gone", 5)


def test_looking_for_room_leaves_nothing(tmp_path: Path) -> None:
    assert has_space(tmp_path, 5_000_000)
    assert list(tmp_path.iterdir()) == []
