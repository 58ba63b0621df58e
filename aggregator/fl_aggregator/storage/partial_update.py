"""Updates that arrive in chunks: in memory, or in mapped files of the spool."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.storage.disk_space import allocate, raising_disk_full
from fl_aggregator.storage.spool_format import (
    ChunkTable,
    SpoolFileDamaged,
    UpdateDescription,
    map_file,
    read_description,
)
from fl_shared.system.files import sync_directory

MAX_FREE_BYTES: Final = 16 * 2**20
"""Bytes of unused memory that the pool keeps. It keeps the memory of one update even if that is larger."""

_DIRECTORY_ENTRY_BYTES: Final = 4096
"""Bytes that a new entry in a directory may need on the disk."""


class MemoryPool:
    """Keeps the memory of finished updates for the next ones.

    The first access to new pages takes longer than filling them. It is NumPy's, since the kernel gives that large
    pages, but none to an anonymous map.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[NDArray[np.uint8]] = []

    def get(self, size: int) -> NDArray[np.uint8]:
        with self._lock:
            for index, memory in enumerate(self._free):
                if len(memory) == size:
                    return self._free.pop(index)
        return np.empty(size, np.uint8)

    def put(self, memory: NDArray[np.uint8]) -> None:
        with self._lock:
            self._free.append(memory)
            while len(self._free) > 1 and sum(map(len, self._free)) > MAX_FREE_BYTES:
                self._free.pop(0)


class PartialUpdate(Protocol):
    """An update that arrives in chunks. ``data`` is a writable view of its bytes."""

    data: memoryview

    def mark_received(self, index: int) -> None:
        """Records that chunk ``index`` has been written to its place in ``data``."""

    def finalize(self) -> None:
        """Stores the update as complete. Raises ``OSError``."""

    def drop(self) -> None:
        """Deletes the update from the disk."""

    def close(self) -> None:
        """Releases the memory. ``data`` must not be used afterwards, and no view of it may remain."""


class PartialInMemory:
    """One of ``size`` bytes whose memory is from ``pool``, and goes back to it. It is on no disk."""

    def __init__(self, size: int, pool: MemoryPool) -> None:
        self._pool = pool
        self._memory: NDArray[np.uint8] | None = pool.get(size)
        self.data = self._memory.data

    def mark_received(self, index: int) -> None:
        pass

    def finalize(self) -> None:
        pass

    def drop(self) -> None:
        pass

    def close(self) -> None:
        self.data.release()
        if self._memory is not None:
            self._pool.put(self._memory)
            self._memory = None


class PartialInFile:
    """An update in a mapped file. The map keeps the file open by itself."""

    def __init__(self, path: Path, file: mmap.mmap, description: UpdateDescription, *, sync: bool) -> None:
        self._path = path
        self._file = file
        self._sync = sync
        self.description = description
        self.data = memoryview(file)[: description.size]
        self._table = ChunkTable(file, description)

    @classmethod
    def new(cls, path: Path, description: UpdateDescription, *, sync: bool) -> Self:
        trailer = description.trailer()
        # Never reuse the file: an earlier object may still have it mapped.
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            allocate(file, description.size + len(trailer))
            mapped = mmap.mmap(file, description.size + len(trailer))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        mapped[description.size :] = trailer
        return cls(path, mapped, description, sync=sync)

    @classmethod
    def reopen(cls, path: Path, *, sync: bool) -> Self:
        """Opens the file of an upload from an earlier incarnation.

        Raises ``SpoolFileDamaged`` and ``OSError``.
        """
        file = map_file(path, mmap.ACCESS_WRITE)
        description = read_description(file)
        if path.name != partial_name(path.name.partition(".")[0], description) or not description.chunks:
            raise SpoolFileDamaged("its content does not match its name")
        return cls(path, file, description, sync=sync)

    def received_chunks(self) -> bytearray:
        """One byte for each chunk: 1 if it has arrived."""
        return self._table.received_chunks()

    def mark_received(self, index: int) -> None:
        self._table.mark_received(index)

    def finalize(self) -> None:
        client = self._path.name.partition(".")[0]
        with raising_disk_full(_DIRECTORY_ENTRY_BYTES, self._path.parent):
            if self._sync:
                self._file.flush()
            self._path = self._path.rename(self._path.parent / f"{client}.update")
            if self._sync:
                sync_directory(self._path.parent)

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self.data.release()
        self._file.close()


def partial_name(client: str, description: UpdateDescription) -> str:
    """The file name of an incomplete upload. A client id contains no dot.

    The name contains the digest because a client may begin another upload while its last one is checked.
    """
    return f"{client}.{description.digest}.part"
