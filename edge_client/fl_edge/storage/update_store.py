"""Keeps the finished update of an edge on disk if it is not answered soon: a killed edge need not train again.

It is ``update.safetensors`` in the edge's state directory, with one tensor for each section. The metadata
``update`` (JSON) has the client, the selection that the update was trained for, and what an offer says of it.
The file is written under another name and then renamed. Nothing waits for the disk: a file that a power
failure has left incomplete is recognized by its digest.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
import time
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from fl_edge.session.work import PendingUpdate
from fl_edge.storage.saved_file import delete, read_metadata, reason_of
from fl_shared.protocol import messages as m
from fl_shared.system.files import open_regular, write_atomically
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.registry import SectionEncoding
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.safetensors_file import Tensor, file_head
from fl_shared.tensors.sections import ModelSection, model_digest
from fl_shared.transfer.upload import FinishedUpdate

LOG = logging.getLogger(__name__)

FILE_NAME: Final = "update.safetensors"
"""Name of the file in the state directory."""
MAX_HEADER: Final = 2**27
"""Bytes. The names of as many arrays as a model may have take half of them."""
SAVE_DELAY: Final = 1.0
"""Seconds. A write of the whole update costs a copy, and is for nothing if the update is answered."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    encoding: SectionEncoding
    arrays: tuple[ArraySpec, ...]
    size: m.Count


class _Metadata(BaseModel):
    """All of a saved update except its data."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    client: m.ClientId
    selected: m.Selected
    base: m.Digest | None
    digest: m.Digest
    examples: m.Count
    steps: m.Count
    seconds: m.Seconds
    metrics: m.UpdateMetrics
    sum_of: m.SumOf | None = None
    plan: m.Digest | None = None
    sections: tuple[_Section, ...]


def write(path: Path, client: str, pending: PendingUpdate) -> None:
    """Writes an update to ``path``. Raises ``OSError``; then ``path`` still holds what it held before."""
    write_atomically(path, _header(client, pending), *(section.data for section in pending.update.sections))


def read(path: Path, client: str) -> PendingUpdate | None:
    """Returns the saved update of ``client``, or ``None`` if there is none.

    Its data is mapped from the file. A file that is not usable is logged and removed.
    """
    try:
        return _read(path, client)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        LOG.warning(
            "removed %s, which is not usable; the edge trains again if it is still selected: %s",
            path,
            reason_of(error),
            extra={"client": client},
        )
        delete(path)
        return None


def _header(client: str, pending: PendingUpdate) -> bytes:
    update = pending.update
    metadata = _Metadata(
        client=client,
        selected=pending.selected,
        base=update.base,
        digest=update.digest,
        examples=update.examples,
        steps=update.steps,
        seconds=update.seconds,
        metrics=update.metrics,
        sum_of=update.sum_of,
        plan=update.plan,
        sections=tuple(
            _Section(name=s.name, encoding=s.encoding, arrays=s.manifest.arrays, size=len(s.data))
            for s in update.sections
        ),
    )
    # Other tools can read float32 values as they are; other encodings they see as bytes.
    tensors = (
        Tensor(s.name, [s.manifest.values], len(s.data))
        if s.encoding == FLOAT32.name
        else Tensor(s.name, [len(s.data)], len(s.data), "U8")
        for s in update.sections
    )
    return file_head(tensors, {"update": metadata.model_dump_json()})


def _read(path: Path, client: str) -> PendingUpdate:
    with os.fdopen(open_regular(path), "rb") as file:
        text, start = read_metadata(file, "an update", MAX_HEADER)
        # The mapping stays valid after the file is closed, and after it is removed.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    metadata = _Metadata.model_validate_json(text)
    if metadata.client != client:
        raise ValueError(f"client: {metadata.client!r}, but this edge is {client!r}")
    update = FinishedUpdate(
        base=metadata.base,
        digest=metadata.digest,
        examples=metadata.examples,
        steps=metadata.steps,
        seconds=metadata.seconds,
        metrics=metadata.metrics,
        sections=_sections(metadata, data[start:]),
        sum_of=metadata.sum_of,
        plan=metadata.plan,
    )
    if model_digest(update.sections) != metadata.digest:
        raise ValueError("digest: does not match the data")
    return PendingUpdate(metadata.selected, update)


def _sections(metadata: _Metadata, data: memoryview) -> tuple[ModelSection, ...]:
    sections = []
    start = 0
    for section in metadata.sections:
        manifest = Manifest(arrays=section.arrays)
        if problem := SectionFormat.of(section.encoding, manifest).size_problem(section.size):
            raise ValueError(f"section {section.name!r}: size: {problem}")
        stop = start + section.size
        sections.append(ModelSection(section.name, manifest, data[start:stop], section.encoding))
        start = stop
    if start != len(data):
        raise ValueError(f"{len(data)} bytes of data, expected {start}")
    return tuple(sections)


class UpdateWriter:
    """Writes and removes saved updates on a thread of its own.

    An update is written ``delay`` seconds after the request. Only the newest request for a file counts: an update that
    is answered until then, as most are, is never written. What an edge that is killed within this time has trained is
    lost, which is at most that much work more than a kill during the training costs.
    """

    def __init__(self, delay: float = SAVE_DELAY) -> None:
        self._delay = delay
        self._changed = threading.Condition()
        self._pending: dict[Path, tuple[float, str, PendingUpdate]] = {}
        """By file, in the order of the times (of the monotonic clock) at which they are due."""
        self._obsolete: dict[Path, None] = {}
        """Files to remove, in order."""
        self._absent: set[Path] = set()
        """Files that were removed, and not written since: most updates are answered before they are written."""
        self._wakes_at = -math.inf
        """When the thread looks at the requests again, unless it is woken."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def save(self, path: Path, client: str, pending: PendingUpdate) -> None:
        """Requests that an update of ``client`` be written to ``path`` if it is not deleted before."""
        with self._changed:
            self._obsolete.pop(path, None)
            self._pending.pop(path, None)
            due = time.monotonic() + self._delay
            self._pending[path] = due, client, pending
            if due < self._wakes_at:
                self._changed.notify()

    def delete(self, path: Path) -> None:
        """Requests that the file be removed, and returns at once."""
        with self._changed:
            self._pending.pop(path, None)
            if path not in self._absent:
                self._obsolete[path] = None
                self._changed.notify()

    def close(self, timeout: float = 10.0) -> None:
        """Waits up to ``timeout`` seconds until all requests are done, without a delay, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                while (task := self._next()) is None:
                    if self._closing:
                        return
                    first = next(iter(self._pending.values()), None)
                    self._wakes_at = math.inf if first is None else first[0]
                    self._changed.wait(None if first is None else max(0.0, first[0] - time.monotonic()))
            path, request = task
            if request is None:
                if delete(path):
                    self._absent.add(path)
            else:
                self._write(path, *request)
            del task, request  # it may be large

    def _next(self) -> tuple[Path, tuple[str, PendingUpdate] | None] | None:
        """Takes the next file that is to be removed, or written now; null if there is none."""
        if self._obsolete:
            path = next(iter(self._obsolete))
            del self._obsolete[path]
            return path, None
        for path, (due, client, pending) in self._pending.items():
            if due > time.monotonic() and not self._closing:
                return None
            del self._pending[path]
            self._absent.discard(path)
            return path, (client, pending)
        return None

    @staticmethod
    def _write(path: Path, client: str, pending: PendingUpdate) -> None:
        try:
            write(path, client, pending)
        except OSError as error:
            # The update is still in memory: only an edge that is killed now has to train again.
            LOG.warning(
                "%s: not written: %s; the update stays in memory and is lost if the edge is killed now",
                path,
                error.strerror,
                extra={"client": client},
            )
            delete(path)  # an update of an earlier round is useless
