"""What an edge keeps of a run, on disk: what counts, and what is staged with its newest update.

It keeps vectors for a correction, and the part of the model that is not shared. ``own.safetensors`` counts,
``own.next.safetensors`` is staged, ``personal.safetensors`` is a model of the edge's own. Each has a float32 tensor for
each vector.
The metadata has the client, the run, the round and the digest of the update that it came with, and the digest of the
data, by which a file is recognized that a power failure has left incomplete.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from fl_edge.session.work import OwnState, StateReference
from fl_edge.storage.saved_file import delete, read_metadata, reason_of
from fl_shared.protocol import messages as m
from fl_shared.system.files import open_regular, write_atomically
from fl_shared.tensors.digest import digest_of
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.safetensors_file import Tensor, file_head
from fl_shared.tensors.sections import parts_of

LOG: Final = logging.getLogger(__name__)

CURRENT: Final = "own.safetensors"
STAGED: Final = "own.next.safetensors"
PERSONAL: Final = "personal.safetensors"
MAX_HEADER: Final = 2**16
"""Bytes."""
MAX_BYTES: Final = 2**36
"""Bytes of a file."""

Vectors = Mapping[str, bytes | memoryview]
"""Encoded vectors, by name."""


class _Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    client: m.ClientId
    run: m.RunId
    round: m.Count
    digest: m.Digest
    ticket: bool = False
    sizes: dict[str, m.Count]
    """Bytes of each vector, in the order of the file."""
    content: m.Digest
    """Of the data."""


class OwnStateFiles:
    """The two files in the state directory of an edge. If one cannot be written, it is in memory instead."""

    def __init__(self, directory: Path, client: str) -> None:
        self._directory = directory
        self._client = client
        self._memory: dict[str, dict[str, bytes]] = {}

    def read(self) -> OwnState:
        """Returns what the files are. Those that are not usable are logged and removed."""
        return OwnState(*map(self._reference, (CURRENT, STAGED, PERSONAL)))

    def stage(self, reference: StateReference, vectors: Vectors) -> None:
        """Writes what is staged, in place of what was. When it returns, it survives the process."""
        self._write(STAGED, reference, vectors)

    def keep_personal(self, reference: StateReference, vectors: Vectors) -> None:
        """Writes a model of the edge's own, in place of the one before."""
        self._write(PERSONAL, reference, vectors)

    def _write(self, file: str, reference: StateReference, vectors: Vectors) -> None:
        names = sorted(vectors)
        data = [vectors[name] for name in names]
        metadata = _Metadata(
            client=self._client, run=reference.run, round=reference.round, digest=reference.digest,
            ticket=reference.ticket,
            sizes={name: len(vectors[name]) for name in names}, content=digest_of(*data),
        )  # fmt: skip
        tensors = (
            Tensor(name, [len(one) // FLOAT32.size(1)], len(one))
            for name, one in zip(names, data, strict=True)
        )
        head = file_head(tensors, {"state": metadata.model_dump_json()})
        self._memory.pop(file, None)
        try:
            write_atomically(self._directory / file, head, *data)
        except OSError as error:
            LOG.warning(
                "%s: not written: %s; it stays in memory, and this edge begins as a new one if it is killed now",
                self._directory / file,
                error.strerror,
                extra={"client": self._client},
            )
            delete(self._directory / file)
            self._memory[file] = {name: bytes(one) for name, one in zip(names, data, strict=True)}

    def promote(self) -> None:
        """Makes what is staged what counts."""
        in_memory = self._memory.pop(STAGED, None)
        self._memory.pop(CURRENT, None)
        if in_memory is not None:
            delete(self._directory / CURRENT)
            self._memory[CURRENT] = in_memory
            return
        try:
            (self._directory / STAGED).replace(self._directory / CURRENT)
        except OSError as error:
            LOG.warning("cannot rename %s: %s", self._directory / STAGED, error.strerror)

    def drop(self, *, staged: bool = False, current: bool = False, personal: bool = False) -> None:
        """Deletes what is asked for."""
        for name, asked in ((STAGED, staged), (CURRENT, current), (PERSONAL, personal)):
            if asked:
                self._memory.pop(name, None)
                delete(self._directory / name)

    def current(self) -> dict[str, memoryview]:
        """Returns the vectors that count; none if there are none."""
        return self._vectors(CURRENT)

    def personal(self) -> dict[str, memoryview]:
        """Returns the vectors of the edge's own model; none if it has none."""
        return self._vectors(PERSONAL)

    def _vectors(self, file: str) -> dict[str, memoryview]:
        if file in self._memory:
            return {name: memoryview(data) for name, data in self._memory[file].items()}
        found = self._load(file)
        return {} if found is None else found[1]

    def _reference(self, name: str) -> StateReference | None:
        found = self._load(name)
        return (
            None
            if found is None
            else StateReference(found[0].run, found[0].round, found[0].digest, found[0].ticket)
        )

    def _load(self, name: str) -> tuple[_Metadata, dict[str, memoryview]] | None:
        path = self._directory / name
        try:
            return self._parsed(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            LOG.warning(
                "removed %s, which is not usable: %s; this edge begins as a new one",
                path,
                reason_of(error),
                extra={"client": self._client},
            )
            delete(path)
            return None

    def _parsed(self, path: Path) -> tuple[_Metadata, dict[str, memoryview]]:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes, expected at most {MAX_BYTES}")
            text, _ = read_metadata(file, "a state", MAX_HEADER)
            data = memoryview(file.read())
        metadata = _Metadata.model_validate_json(text)
        if metadata.client != self._client:
            raise ValueError(f"client: {metadata.client!r}, but this edge is {self._client!r}")
        if metadata.content != digest_of(data):
            raise ValueError("content: does not match the data")
        if sum(metadata.sizes.values()) != len(data):
            raise ValueError(f"sizes: {metadata.sizes}, but there are {len(data)} bytes")
        return metadata, parts_of(data, metadata.sizes)
