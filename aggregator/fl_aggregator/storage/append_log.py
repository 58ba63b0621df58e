"""A file that grows by whole lines: the journal or the history."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import IO

from fl_shared.system.files import open_regular, read_lines, write_all


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

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
