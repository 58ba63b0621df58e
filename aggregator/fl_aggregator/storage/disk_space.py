"""Disk space: reserves it, tells a full disk from other errors, and checks whether there is space again.

A process or machine that has no file descriptor or memory left is treated as a full disk: that passes, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fl_shared.system.text import size_text

DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_WORDS: Final = {
    errno.EMFILE: "too many open files in this program (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: "out of memory",
}
_ZEROS: Final = bytes(2**20)


class DiskFull(OSError):
    """About ``needed`` bytes could not be written below ``directory``; what was written has been removed."""

    def __init__(self, error: OSError, directory: Path, needed: int) -> None:
        super().__init__(error.errno, error.strerror, str(directory))
        self.directory = directory
        self.needed_bytes = needed

    def clear_traceback(self) -> None:
        """Drops the frames that the error passed through, whose variables keep maps of files open."""
        self.__traceback__ = self.__context__ = None

    def __str__(self) -> str:
        if self.errno in _WORDS:
            return f"{_WORDS[self.errno]}: {self.directory} cannot be written to"
        return f"disk full: {self.directory}: needs {size_text(self.needed_bytes)}"


@contextlib.contextmanager
def raising_disk_full(size: int, directory: Path) -> Iterator[None]:
    """Turns the ``OSError`` of a full disk or quota into `DiskFull` while a block writes to ``directory``.

    ``size``: about how many bytes the block writes.
    """
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            # From Python 3.12 on, it and its frames refer to each other, and would keep maps of files open.
            error.__traceback__ = None
            raise DiskFull(error, directory, size) from None
        raise


def allocate(file: int, size: int) -> None:
    """Reserves ``size`` bytes on the disk for an open file, and sets its length. Raises ``OSError``.

    A full disk is then an error here. Without the reservation, it would be a signal (SIGBUS) that kills the
    process while it writes to a map of the file.
    """
    if size and hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, size)
    os.ftruncate(file, size)


def has_space(directory: Path, size: int) -> bool:
    """Whether ``size`` bytes can be written below ``directory`` now.

    The function tries it, since a quota may allow less than what is free.
    Raises ``OSError`` for any error other than a full disk or quota.
    """
    statistics = os.statvfs(directory)
    if statistics.f_bavail * statistics.f_frsize < size:
        return False  # without trying, which would take all that is left from other programs for a moment
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, size))
                return True
            for start in range(0, max(1, size), len(_ZEROS)):
                file.write(_ZEROS[: max(1, size) - start])
            file.flush()
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            return False
        raise
    return True
