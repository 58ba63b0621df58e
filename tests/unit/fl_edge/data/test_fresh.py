"""An edge finds out that its data have changed, and reads them again."""

from __future__ import annotations

import os
from pathlib import Path

from fl_edge.data import fresh
from fl_edge.data.tables import read_table
from tests.support.tables import write_csv


def test_the_stamp_follows_files_and_what_is_added_to_folders(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    table = tmp_path / "t.csv"
    table.write_text("a\n1\n")
    stamps = [fresh.stamp_of(tmp_path)]
    assert fresh.stamp_of(tmp_path) == stamps[0]
    table.write_text("a\n12\n")
    stamps.append(fresh.stamp_of(tmp_path))
    os.utime(table, ns=(1, 1))
    stamps.append(fresh.stamp_of(tmp_path))
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"")
    stamps.append(fresh.stamp_of(tmp_path))
    assert len(set(stamps)) == len(stamps)


def test_there_is_none_without_data(tmp_path: Path) -> None:
    assert fresh.stamp_of(None) == fresh.stamp_of(tmp_path / "none") == ()


def test_a_change_is_counted_once_and_after_a_look_there_is_a_pause(tmp_path: Path) -> None:
    times = iter((0.0, 2.0, 21.0, 22.0, 23.0, 30.0, 31.0))
    watch = fresh.Watch(tmp_path, lambda: next(times))
    counts = []
    for file in (None, "1.csv", None, None):
        if file is not None:
            (tmp_path / file).write_text("a\n1\n")
        watch.look()  # the first takes 2 s, until 2.0, and so the next is not before 22.0
        counts.append(watch.changes)
    assert counts == [0, 0, 1, 1]
    assert list(times) == [31.0], "nor is there one at 30.0"


def test_what_was_read_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, ("age",), [(1,)])
    assert len(read_table(path)) == 1
    write_csv(path, ("age",), [(1,), (2,)])
    assert len(read_table(path)) == 1
    fresh.forget()
    assert len(read_table(path)) == 2
