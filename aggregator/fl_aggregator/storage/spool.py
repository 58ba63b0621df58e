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
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_aggregator.configuration.settings import Durability
from fl_aggregator.storage.disk_space import raising_disk_full
from fl_aggregator.storage.opened_shares import SUFFIX, read_shares, write_shares
from fl_aggregator.storage.partial_update import (
    MemoryPool,
    PartialInFile,
    PartialInMemory,
    PartialUpdate,
    partial_name,
)
from fl_aggregator.storage.spool_format import (
    SpoolFileDamaged,
    UpdateDescription,
    map_file,
    read_description,
)
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.masking.unmasking import Opened
from fl_shared.protocol.topics import CLIENT_PATTERN, NUMBER
from fl_shared.system.files import (
    delete_temporary_files,
    is_temporary,
    sync_directory,
    write_atomically,
)

LOG: Final = logging.getLogger(__name__)

DIRECTORY: Final = "spool"

_FILE_NAME: Final = re.compile(rf"{CLIENT_PATTERN}\.(update|shares|[0-9a-f]{{64}}\.part)")


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
        self._pool = MemoryPool()

    def begin(self, round_number: int, client: str, description: UpdateDescription) -> PartialUpdate:
        """Reserves space for an update that arrives in chunks.

        Raises ``OSError`` (for example ``DiskFull``).
        """
        if self._durability == "memory":
            return PartialInMemory(description.size, self._pool)
        with raising_disk_full(description.size + len(description.trailer()), self.path):
            path = self._ensure_folder(round_number) / partial_name(client, description)
            return PartialInFile.new(path, description, sync=self._sync)

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
        file = map_file(self._path(round_number, client, ".update"), mmap.ACCESS_READ)
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
                partial = PartialInFile.reopen(path, sync=self._sync)
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
