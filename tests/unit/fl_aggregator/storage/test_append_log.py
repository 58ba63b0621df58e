"""The journal and the history grow by whole lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import ModelCreated, Started
from fl_aggregator.storage import journal
from fl_aggregator.storage.append_log import AppendLog
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.run_directory import HISTORY_FILE, RunDirectory, new_record
from fl_shared.system.files import is_temporary
from tests.support.samples import DATA, MANIFEST

FULL = """
import resource, sys
from pathlib import Path
from fl_aggregator.storage.append_log import AppendLog
path = Path(sys.argv[1])
lines = AppendLog(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(30):
    try:
        lines.append(f"{number} " + "x" * 90)
    except OSError:
        break
else:
    raise SystemExit("there was room for all of them")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lines.append(f"{number} again")
"""


def test_a_line_for_which_there_is_no_room_leaves_nothing(tmp_path: Path) -> None:
    """A write may take a part of a line before the next one says that there is no room."""
    path = tmp_path / "lines"
    subprocess.run([sys.executable, "-c", FULL, str(path)], check=True, timeout=60)
    lines = path.read_text().splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert all(len(line) > 90 for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} again"


def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthr")
    lines = AppendLog(path)
    lines.append("three")
    lines.close()
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_line_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\n")
    lines = AppendLog(path)
    lines.cut(1)
    lines.append("four")
    lines.close()
    assert path.read_text() == "one\nfour\n"


@pytest.mark.parametrize("durability", ["memory", "process", "power"])
def test_a_commit_is_on_the_disk_and_with_power_every_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    seen: set[str] = set()
    really = os.fsync

    def fsync(file: int) -> None:
        name = Path(f"/proc/self/fd/{file}").readlink().name
        seen.add("temporary" if is_temporary(name) else name)
        really(file)

    monkeypatch.setattr(os, "fsync", fsync)
    directory = RunDirectory(tmp_path / "run", durability)  # type: ignore[arg-type]
    directory.write_run(new_record(Settings(durability=durability)))
    directory.checkpoints.write(0, Model.of(MANIFEST, np.frombuffer(DATA, "<f4")))
    directory.append_history({"round": 1})
    directory.journal.append(Started(now=0.0))
    expected = {
        "memory": set(),
        "process": {"temporary", "checkpoints"},
        "power": {"temporary", "checkpoints", "run", journal.FILE_NAME},
    }
    assert seen == expected[durability]
    directory.journal.append(ModelCreated(now=1.0, round=0, digest="d", manifest="m"))
    assert journal.FILE_NAME in seen
    directory.close()
    assert (tmp_path / "run" / HISTORY_FILE).read_text() == '{"round": 1}\n'
