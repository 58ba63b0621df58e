"""Room on the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
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


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EMFILE, "too many open files in this program (ulimit -n)"),
        (errno.ENFILE, "too many open files on this machine"),
        (errno.ENOMEM, "out of memory"),
    ],
)
def test_a_lack_of_descriptors_or_memory_is_waited_for_as_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    with pytest.raises(DiskFull) as caught, raising_disk_full(5, tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{says}: {tmp_path} cannot be written to"

    def lacking(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lacking)
        assert not has_space(tmp_path, 5)
    assert has_space(tmp_path, 5)


def test_other_errors_are_not_a_lack_of_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, raising_disk_full(5, tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, DiskFull)
    with pytest.raises(FileNotFoundError):
        has_space(tmp_path / "gone", 5)


def test_looking_for_room_leaves_nothing(tmp_path: Path) -> None:
    assert has_space(tmp_path, 5_000_000)
    assert list(tmp_path.iterdir()) == []


NO_DESCRIPTORS = """
import os, sys, resource
from pathlib import Path
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.disk_space import DiskFull, has_space, raising_disk_full
from fl_shared.system.files import write_atomically
directory = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
while True:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
try:
    with raising_disk_full(10, directory):
        write_atomically(directory / "file", b"x")
except DiskFull as error:
    assert str(error).startswith("too many open files in this program (ulimit -n): "), error
else:
    raise SystemExit("there was a descriptor left")
assert not has_space(directory, 10)
os.close(held.pop())
assert has_space(directory, 10)
"""


def test_a_process_without_file_descriptors_waits_for_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", NO_DESCRIPTORS, str(tmp_path)], check=True, timeout=60)


def test_a_full_disk_keeps_no_frames_of_what_was_written(tmp_path: Path) -> None:
    """Their variables are views of mapped files, which could then not be closed."""
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFull), raising_disk_full(1, tmp_path):
        raise error
    assert error.__traceback__ is None
