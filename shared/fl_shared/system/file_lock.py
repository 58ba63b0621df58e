"""An exclusive lock on a file. The kernel releases it when its process ends, however that happens."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

MAX_ATTEMPTS: Final = 100
"""How often the file may be deleted by its holder while another process waits for it."""


class FileLock:
    """Holds the lock of ``path`` until `release`; creates the file if it does not exist.

    A lock counts only while the locked file is still the one with that name. So its holder may delete the file,
    although another process has already opened it and gets the lock of the deleted file next.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        """Raises ``BlockingIOError`` if another process holds the lock, or ``OSError``; follows no link."""
        self._path = path
        for _ in range(MAX_ATTEMPTS):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current():
                    return
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False

    def write(self, text: str) -> None:
        """Replaces the content of the file, which is for people only."""
        # In this order, since ext4 writes a file to the disk that was cut to nothing, and waits for it.
        os.ftruncate(self._file, os.pwrite(self._file, text.encode(), 0))

    def release(self, *, delete: bool = False) -> None:
        """Releases the lock, and first deletes the file with ``delete``."""
        if delete:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
