"""Room on the disk: what there was none for, and whether there is again."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fl_shared.system.text import size_text

DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ZEROS: Final = bytes(2**20)


class DiskFull(OSError):
    """``needed`` bytes (about) could not be had below ``directory``; nothing of them stays."""

    def __init__(self, error: OSError, directory: Path, needed: int) -> None:
        super().__init__(error.errno, error.strerror, str(directory))
        self.directory = directory
        self.needed_bytes = needed

    def clear_traceback(self) -> None:
        """Of whom it came from, so that what they held in their hands (maps of files) can be closed."""
        self.__traceback__ = self.__context__ = None

    def __str__(self) -> str:
        return f"disk full: {self.directory}: needs {size_text(self.needed_bytes)}"


@contextlib.contextmanager
def raising_disk_full(size: int, directory: Path) -> Iterator[None]:
    """Whatever is written inside is ``size`` bytes (about) below ``directory``, and too much is a ``DiskFull``."""
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(error, directory, size) from None
        raise


def allocate(file: int, size: int) -> None:
    """Makes sure of ``size`` bytes from the beginning of a file. Raises ``OSError``.

    So a full disk is told now, as an error, and not while writing to a map of the file, as a signal that kills.
    """
    if size and hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file, 0, size)
    os.ftruncate(file, size)


def has_space(directory: Path, size: int) -> bool:
    """Whether ``size`` bytes can be had there now: by taking them, since free space is nobody's promise.

    Raises ``OSError`` if it is not room that is missing.
    """
    statistics = os.statvfs(directory)
    if statistics.f_bavail * statistics.f_frsize < size:
        return False  # not to be tried: it would take from others, if only for a moment, all that is left
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
