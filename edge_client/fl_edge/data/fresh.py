"""Whether the data of an edge have changed, and forgetting what was read of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_DEPTH: Final = 3
"""Directories below the data's own that are looked at: a split, a class, and one more."""
_PAUSE: Final = 10
"""How many times as long as a look at the data the pause after it is."""

Stamp = tuple[tuple[str, int, int], ...]


class Watch:
    """Counts how often the data in ``data_dir`` have changed. ``clock``: in seconds."""

    def __init__(self, data_dir: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.changes = 0
        self._data_dir, self._clock = data_dir, clock
        self._stamp = stamp_of(data_dir)
        self._look_at = -math.inf

    def look(self) -> None:
        """Looks whether the data have changed, unless it has just looked.

        Thousands of edges load their data at once, and of thousands of files a look takes long.
        """
        started = self._clock()
        if started < self._look_at:
            return
        if (stamp := stamp_of(self._data_dir)) != self._stamp:
            self._stamp = stamp
            self.changes += 1
        ended = self._clock()
        self._look_at = ended + _PAUSE * (ended - started)


def stamp_of(data_dir: Path | None) -> Stamp:
    """Returns what changes when files are written: names, times and sizes of those in ``data_dir``.

    Of subdirectories only their own times, which change when files are added or removed. Empty if it cannot be read.
    """
    return () if data_dir is None else tuple(sorted(_entries(str(data_dir), _DEPTH, is_top=True)))


def _entries(directory: str, depth: int, *, is_top: bool = False) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                is_directory = entry.is_dir()
                if not is_directory and not is_top:
                    continue
                status = entry.stat()
                found.append((entry.path, status.st_mtime_ns, 0 if is_directory else status.st_size))
                if is_directory and depth > 1:
                    found += _entries(entry.path, depth - 1)
    except OSError:  # whoever reads the data says what is wrong with them
        pass
    return found


def forget() -> None:
    """Forgets all that was read of data in this process."""
    from fl_edge.data import datasets, parts, tables  # not where there is only a stamp to be taken

    tables.read_table.cache_clear()
    datasets.read.cache_clear()
    parts.forget()
