"""The spool: the data of accepted updates of the open round, one file each; and of updates that are coming in.

An update is here before its edge hears ``accepted``, as safely as ``durability`` says. What it is (whose, examples,
digest) stands in the journal. A file called ``.update`` is whole; one called ``.part`` is not.
"""

from __future__ import annotations

import mmap
import os
import shutil
import threading
from pathlib import Path
from typing import Final, Literal

from fl_aggregator.check import SectionContent

DIRECTORY: Final = "spool"

KEPT_FREE: Final = 16 * 2**20
"""Bytes of such memory that are kept, or one update's, if it is larger."""

Durability = Literal["process", "power", "memory"]
"""What an accepted update survives: the end of the process (page cache), of power (fsync), or nothing."""


class _Room:
    """Memory of updates that are done with, for the next ones: touching new pages costs as much as filling them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []

    def get(self, size: int) -> mmap.mmap:
        with self._lock:
            for index, room in enumerate(self._free):
                if len(room) == size:
                    return self._free.pop(index)
        return mmap.mmap(-1, size)

    def put(self, room: mmap.mmap) -> None:
        with self._lock:
            self._free.append(room)
            while len(self._free) > 1 and sum(map(len, self._free)) > KEPT_FREE:
                self._free.pop(0).close()


class Partial:
    """An update on its way: ``data`` is ``size`` writable bytes, a file's or (``memory``) nobody's but ours."""

    def __init__(self, size: int, path: Path | None, room: _Room, *, sync: bool) -> None:
        self._path = path
        self._room = room
        self._sync = sync
        self._file: int | None = None
        self._map: mmap.mmap | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # A full disk is told now, as an error, and not while writing to the map, as a signal that kills.
                if size and hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(self._file, 0, size)
                os.ftruncate(self._file, size)
                self._map = mmap.mmap(self._file, size) if size else None
            except OSError:
                self.drop()
                raise
        elif size:
            self._map = room.get(size)
        self.data = memoryview(b"") if self._map is None else memoryview(self._map)

    def keep(self) -> None:
        """It is whole: from now on it counts. Raises ``OSError``."""
        if self._path is None or self._file is None:
            return
        if self._sync:
            if self._map is not None:
                self._map.flush()
            os.fsync(self._file)
        self._path.rename(self._path.with_suffix(".update"))
        if self._sync:
            _sync_directory(self._path.parent)

    def close(self) -> None:
        """Lets go of the memory; ``data`` must not be used any more, and no view of it be left."""
        self.data.release()
        if self._map is not None:
            if self._path is None:
                self._room.put(self._map)
            else:
                self._map.close()
            self._map = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def drop(self) -> None:
        """It is of no use: nothing stays of it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Spool:
    """Updates under ``DIR/spool/<round>/<client>``."""

    def __init__(self, directory: Path, durability: Durability = "process") -> None:
        self._root = directory / DIRECTORY
        self._root.mkdir(parents=True, exist_ok=True)
        self._durability = durability
        self._room = _Room()

    def begin(self, round_number: int, client: str, size: int) -> Partial:
        """Room for an update of ``size`` bytes. Raises ``OSError`` (disk full, say)."""
        if self._durability == "memory":
            return Partial(size, None, self._room, sync=False)
        path = self._folder(round_number) / f"{client}.part"
        return Partial(size, path, self._room, sync=self._durability == "power")

    def put(self, round_number: int, client: str, sections: tuple[SectionContent, ...]) -> None:
        """Keeps an update that came whole. Raises ``OSError``, and then nothing is kept."""
        if self._durability == "memory":
            return
        folder = self._folder(round_number)
        beside = folder / f"{client}.part"
        try:
            with beside.open("wb") as file:
                for section in sections:
                    file.write(section.data)
                if self._durability == "power":
                    file.flush()
                    os.fsync(file.fileno())
            beside.rename(folder / f"{client}.update")
            if self._durability == "power":
                _sync_directory(folder)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def get(self, round_number: int, client: str) -> bytes:
        return (self._root / str(round_number) / f"{client}.update").read_bytes()

    def forget(self, round_number: int) -> None:
        """Deletes a round's updates; none there is fine."""
        shutil.rmtree(self._root / str(round_number), ignore_errors=True)

    def _folder(self, round_number: int) -> Path:
        folder = self._root / str(round_number)
        folder.mkdir(exist_ok=True)
        return folder


def _sync_directory(path: Path) -> None:
    """A rename is on the disk when its directory is."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
