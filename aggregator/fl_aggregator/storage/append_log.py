"""A file that grows by whole lines: the journal, the history."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from fl_shared.system.files import write_all


class AppendLog:
    """Appends to ``path``; each line is handed to the operating system at once, and with ``sync`` to the disk.

    A last line that was cut off, since somebody died writing it, is taken away first.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._sync = sync
        self._file: IO[bytes] = path.open("ab", buffering=0)
        with path.open("rb") as file:
            self._complete_size = sum(len(line) for line in file if line.endswith(b"\n"))
        self._file.truncate(self._complete_size)

    def append(self, text: str) -> None:
        """A line, without its end. Raises ``OSError``, and then nothing of it stays."""
        line = text.encode() + b"\n"
        try:
            write_all(self._file, line)
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._complete_size)
            raise
        self._complete_size += len(line)

    def close(self) -> None:
        self._file.close()
