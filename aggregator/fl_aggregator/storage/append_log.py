"""A file that grows by whole lines: the journal or the history."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import IO

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_shared.system.files import open_regular, read_lines, sync_directory, temporary_path, write_all


class AppendLog:
    """Appends lines to ``path``. Each goes to the operating system at once.

    A last line that is incomplete, because a process died while writing it, is removed first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        file = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._file: IO[bytes] = os.fdopen(file, "ab", buffering=0)
        self._complete_size = sum(len(line) for line in read_lines(path) if line.endswith(b"\n"))
        self._file.truncate(self._complete_size)

    def append(self, record: str, *, sync: bool = False) -> None:
        """Appends ``record`` and a line end. If it raises ``OSError``, the file is unchanged.

        ``sync``: when it returns, the whole file is on the disk.
        """
        line = record.encode() + b"\n"
        try:
            write_all(self._file, line)
            if sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._complete_size)
            raise
        self._complete_size += len(line)

    def cut(self, lines: int) -> None:
        """Removes all but the first ``lines`` lines. Raises ``OSError``."""
        self._complete_size = sum(len(line) for line in islice(read_lines(self._path), lines))
        self._file.truncate(self._complete_size)

    @property
    def size(self) -> int:
        """Bytes of the whole lines."""
        return self._complete_size

    def sync(self) -> None:
        """Writes the whole file and its name to the disk. Raises ``OSError``."""
        os.fsync(self._file.fileno())
        sync_directory(self._path.parent)

    def replace_start(self, end: int, record: str) -> None:
        """Replaces the lines in the first ``end`` bytes by ``record``. A crash leaves the old or the new file.

        When it returns, the new file is on the disk. Raises ``DiskFull`` if there is no space, which changes nothing,
        and ``OSError``.
        """
        line = record.encode() + b"\n"
        with os.fdopen(open_regular(self._path), "rb") as old:
            old.seek(end)
            rest = old.read()
        temporary = temporary_path(self._path)
        with raising_disk_full(len(line) + len(rest), self._path.parent):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = os.fdopen(os.open(temporary, flags, 0o666), "ab", buffering=0)
            try:
                write_all(file, line, rest)
                os.fsync(file.fileno())
                temporary.replace(self._path)
            except BaseException:
                file.close()
                temporary.unlink(missing_ok=True)
                raise
        self._file.close()
        self._file, self._complete_size = file, len(line) + len(rest)
        sync_directory(self._path.parent)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
