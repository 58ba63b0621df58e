"""Updates on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fl_aggregator.check import SectionContent
from fl_aggregator.spool import Durability, Spool


def sections(*pieces: bytes) -> tuple[SectionContent, ...]:
    return tuple(SectionContent("weights", "f32", "m", None, memoryview(piece)) for piece in pieces)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_an_update_in_chunks_is_there_when_it_is_kept(tmp_path: Path, durability: Durability) -> None:
    spool = Spool(tmp_path, durability)
    partial = spool.begin(3, "7", 10)
    partial.data[5:10] = b"world"
    partial.data[0:5] = b"hello"
    assert [path.name for path in (tmp_path / "spool" / "3").iterdir()] == ["7.part"]
    partial.keep()
    partial.close()
    assert spool.get(3, "7") == b"helloworld"
    assert [path.name for path in (tmp_path / "spool" / "3").iterdir()] == ["7.update"]


def test_a_whole_update_is_its_sections_one_after_the_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(3, "7", sections(b"hello", b"world"))
    assert spool.get(3, "7") == b"helloworld"


def test_in_memory_nothing_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "memory")
    partial = spool.begin(3, "7", 10)
    partial.data[0:5] = b"hello"
    partial.keep()
    assert bytes(partial.data) == b"hello" + bytes(5)
    partial.close()
    spool.put(3, "8", sections(b"hello"))
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_is_dropped_or_forgotten_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    partial = spool.begin(3, "7", 10)
    partial.drop()
    partial.close()
    spool.put(3, "8", sections(b"hello"))
    spool.forget(3)
    spool.forget(4)
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_update_without_a_byte(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    partial = spool.begin(0, "7", 0)
    partial.keep()
    partial.close()
    assert spool.get(0, "7") == b""


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)

    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        spool.begin(3, "7", 2**20)
    assert list((tmp_path / "spool" / "3").iterdir()) == []
