"""The spool: the data of the open round's accepted updates, and of updates that are arriving, one file each.

An update is stored before its edge receives ``accepted``, as safely as ``durability`` says. The journal
records its edge and its number of examples. A file named ``.update`` is complete; one named ``.part`` may be
incomplete.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.configuration.settings import Durability
from fl_aggregator.storage.disk_space import allocate, raising_disk_full
from fl_aggregator.storage.opened_shares import SUFFIX, read_shares, write_shares
from fl_aggregator.storage.spool_format import (
    ChunkTable,
    SpoolFileDamaged,
    UpdateDescription,
    read_description,
)
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.masking.unmasking import Opened
from fl_shared.protocol.topics import CLIENT_PATTERN, NUMBER
from fl_shared.system.files import (
    delete_temporary_files,
    is_temporary,
    open_regular,
    sync_directory,
    write_atomically,
)

LOG: Final = logging.getLogger(__name__)

DIRECTORY: Final = "spool"

MAX_FREE_BYTES: Final = 16 * 2**20
"""Bytes of unused memory that the pool keeps. It keeps the memory of one update even if that is larger."""

_FILE_NAME: Final = re.compile(rf"{CLIENT_PATTERN}\.(update|shares|[0-9a-f]{{64}}\.part)")

_DIRECTORY_ENTRY_BYTES: Final = 4096
"""Bytes that a new entry in a directory may need on the disk."""


class _MemoryPool:
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


class _MemoryPartial:
    def __init__(self, size: int, pool: _MemoryPool) -> None:
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


class _FilePartial:
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
        file = _map_file(path, mmap.ACCESS_WRITE)
        description = read_description(file)
        if path.name != _partial_name(path.name.partition(".")[0], description) or not description.chunks:
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


@dataclass(frozen=True, slots=True)
class RecoveredUpload:
    """An upload that began in an earlier incarnation.

    ``received``: one byte for each chunk, 1 if the chunk has arrived.
    """

    partial: PartialUpdate
    description: UpdateDescription
    received: bytearray


class Spool:
    """Stores updates in ``DIR/spool/<round>/<client>.update``, or in memory if ``durability`` says so."""

    def __init__(self, directory: Path, durability: Durability = "process") -> None:
        self.path = directory / DIRECTORY
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)  # updates tell about an edge's data; sealed ones are here without their seal
        self._durability = durability
        self._sync = durability == "power"
        self._pool = _MemoryPool()

    def begin(self, round_number: int, client: str, description: UpdateDescription) -> PartialUpdate:
        """Reserves space for an update that arrives in chunks.

        Raises ``OSError`` (for example ``DiskFull``).
        """
        if self._durability == "memory":
            return _MemoryPartial(description.size, self._pool)
        with raising_disk_full(description.size + len(description.trailer()), self.path):
            path = self._ensure_folder(round_number) / _partial_name(client, description)
            return _FilePartial.new(path, description, sync=self._sync)

    def put(self, round_number: int, client: str, content: UpdateContent) -> None:
        """Stores an update that arrived whole. If it raises ``OSError``, nothing is stored."""
        if self._durability == "memory":
            return
        description = UpdateDescription.of_content(content)
        buffers = [*(section.data for section in content.sections), memoryview(description.trailer())]
        with raising_disk_full(sum(map(len, buffers)), self.path):
            path = self._ensure_folder(round_number) / f"{client}.update"
            write_atomically(path, *buffers, sync=self._sync, private=True)

    def read(self, round_number: int, client: str) -> UpdateContent:
        """A stored update, mapped from its file. Raises ``SpoolFileDamaged`` and ``OSError``."""
        file = _map_file(self._path(round_number, client, ".update"), mmap.ACCESS_READ)
        description = read_description(file)
        return description.content(memoryview(file)[: description.size])

    def get(self, round_number: int, client: str) -> bytes:
        """The data of a stored update, all sections in order. Raises the same errors as `read`."""
        return b"".join(section.data for section in self.read(round_number, client).sections)

    def put_shares(self, round_number: int, client: str, opened: Opened) -> None:
        """Stores the shares that a member of a masked round has opened. Raises ``OSError``."""
        if self._durability != "memory":
            write_shares(self._ensure_folder(round_number), client, opened, sync=self._sync)

    def read_shares(self, round_number: int, client: str, digest: str) -> Opened:
        """The shares of this digest that were stored. Raises ``SpoolFileDamaged`` and ``OSError``."""
        return read_shares(self._folder_of(round_number), client, digest)

    def partial_uploads(self, round_number: int) -> Iterator[tuple[str, RecoveredUpload]]:
        """The incomplete uploads of a round, each with its client. Deletes files that are damaged."""
        for path in sorted(self._folder_of(round_number).glob("*.part")):
            try:
                partial = _FilePartial.reopen(path, sync=self._sync)
            except SpoolFileDamaged as error:
                LOG.warning(
                    "deleted %s, an incomplete upload that is not usable; its edge will send it again: %s",
                    path,
                    error,
                )
                path.unlink(missing_ok=True)
            else:
                yield (
                    path.name.partition(".")[0],
                    RecoveredUpload(partial, partial.description, partial.received_chunks()),
                )

    def delete_round(self, round_number: int) -> None:
        """Deletes a round's updates, if there are any."""
        _delete_folder(self._folder_of(round_number))

    def delete(self, round_number: int, client: str) -> None:
        """Deletes a stored update, if it exists."""
        self._path(round_number, client, ".update").unlink(missing_ok=True)

    def delete_updates(self, updates: Iterable[tuple[int, str]]) -> None:
        """Deletes stored updates, each by its round and its client, and the folders that are empty then."""
        for number, client in updates:
            self.delete(number, client)
            with suppress(OSError):  # another update is in it
                self._folder_of(number).rmdir()

    def delete_except(
        self,
        accepted: Collection[tuple[int, str]],
        open_rounds: Collection[int],
        opened: Collection[tuple[int, str]] = (),
    ) -> None:
        """Deletes, at a resume, all updates but those ``accepted``, each by its round and its client.

        An update that was written but not journalled was not accepted: its edge sends it again. Incomplete
        uploads of ``open_rounds`` stay (`partial_uploads`). Of shares, those that were ``opened`` stay.
        """
        kept = {str(number) for number in (*open_rounds, *(number for number, _ in accepted))}
        for folder in self.path.iterdir():
            if not re.fullmatch(NUMBER, folder.name):
                continue
            if folder.name not in kept:
                _delete_folder(folder)
                continue
            delete_temporary_files(folder)
            for suffix, names in ((".update", accepted), (SUFFIX, opened)):
                for path in folder.glob(f"*{suffix}"):
                    if (int(folder.name), path.stem) not in names:
                        path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """The size of all files in the spool, in bytes. May be read from any thread."""
        total = 0
        for folder, _, files in os.walk(self.path):
            for name in files:
                with suppress(OSError):  # it has been deleted meanwhile
                    total += (Path(folder) / name).stat().st_size
        return total

    def _path(self, round_number: int, client: str, suffix: str) -> Path:
        return self._folder_of(round_number) / f"{client}{suffix}"

    def _folder_of(self, round_number: int) -> Path:
        return self.path / str(round_number)

    def _ensure_folder(self, round_number: int) -> Path:
        folder = self._folder_of(round_number)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return folder
        if self._sync:
            sync_directory(self.path)
        return folder


def _delete_folder(folder: Path) -> None:
    """Deletes the files of a round, and its folder if nothing else is in it. Follows no link."""
    if folder.is_symlink():
        return
    with suppress(OSError):  # it does not exist, or contains what is not ours
        for path in folder.iterdir():
            if _FILE_NAME.fullmatch(path.name) or is_temporary(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()


def _partial_name(client: str, description: UpdateDescription) -> str:
    """The file name of an incomplete upload. A client id contains no dot.

    The name contains the digest because a client may begin another upload while its last one is checked.
    """
    return f"{client}.{description.digest}.part"


def _map_file(path: Path, access: int) -> mmap.mmap:
    """Maps a file.

    Raises ``OSError``, and ``SpoolFileDamaged`` if it is empty, since that cannot be mapped.
    """
    file = open_regular(path, os.O_RDONLY if access == mmap.ACCESS_READ else os.O_RDWR)
    try:
        if os.fstat(file).st_size == 0:
            raise SpoolFileDamaged("it is empty")
        return mmap.mmap(file, 0, access=access)
    finally:
        os.close(file)
