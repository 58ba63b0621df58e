"""A file that grows by whole lines: the journal or the history."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from fl_shared.system.files import open_regular, read_lines, write_all


class AppendLog:
    """Appends lines to ``path``. Each goes to the operating system at once, with ``sync`` to the disk too.

    A last line that is incomplete, because a process died while writing it, is removed first.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._sync = sync
        file = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._file: IO[bytes] = os.fdopen(file, "ab", buffering=0)
        self._complete_size = sum(len(line) for line in read_lines(path) if line.endswith(b"\n"))
        self._file.truncate(self._complete_size)

    def append(self, record: str) -> None:
        """Appends ``record`` and a line end. If it raises ``OSError``, the file is unchanged."""
        line = record.encode() + b"\n"
        try:
            write_all(self._file, line)
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._complete_size)
            raise
        self._complete_size += len(line)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
