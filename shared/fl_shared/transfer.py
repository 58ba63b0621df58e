"""PURE: a model from the messages that have come of it (`Download`); the way to the broker is `publication`.

The receiver drives: it asks for at most `WINDOW` topics at once, takes what comes in any order, and asks for
what does not come again. Nothing here knows a broker or a clock; ``now`` is seconds on one that only grows.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final, Literal

from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.publication import (
    MAX_MODEL_BYTES,
    ModelSection,
    ModelTopic,
    Publication,
    TransferError,
    check_manifest,
    model_digest,
    publication,
    update_sections,
)
from fl_shared.tensors import Manifest

__all__ = [
    "Asking",
    "Download",
    "ModelSection",
    "ModelTopic",
    "Publication",
    "TransferError",
    "check_manifest",
    "model_digest",
    "publication",
    "update_sections",
]

WINDOW: Final = 8
"""Topics that are asked for at once: brokers drop silently what is over a subscriber's queue."""
REASK_AFTER: Final = 5.0
"""Seconds after which a topic that has not come is asked for again, doubling up to `REASK_MOST`."""
REASK_MOST: Final = 30.0
MAX_BAD: Final = 16
"""So many messages that do not fit end a download."""
MAX_STARTS: Final = 3
"""So often is it begun anew when the whole has another digest than it should."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What to tell the broker now: first ``unsubscribe``, then ``subscribe`` (it gives what is retained)."""

    subscribe: tuple[ModelTopic, ...]
    unsubscribe: tuple[ModelTopic, ...]


@dataclass(slots=True)
class _Asked:
    at: float
    times: int


class Download:
    """One model on its way here. Feed it (`take`, `cleared`) and do what `ask` says, after that and at `due`.

    ``state`` is ``open`` until the model is ``complete`` (see `model`), ``superseded`` (the broker's copy was
    cleared) or ``failed`` (see `failure`).
    """

    def __init__(
        self,
        digest: str,
        *,
        window: int = WINDOW,
        max_bytes: int = MAX_MODEL_BYTES,
        reask: float = REASK_AFTER,
    ) -> None:
        self.digest = digest
        self.state: Literal["open", "complete", "superseded", "failed"] = "open"
        self.failure = ""
        self.model: tuple[ModelSection, ...] = ()
        self._window = window
        self._max_bytes = max_bytes
        self._reask = reask
        self._manifest: m.ModelManifest | None = None
        self._manifests: tuple[Manifest, ...] = ()
        self._chunks: dict[int, bytes] = {}
        self._lowest = 0
        self._asked: dict[ModelTopic, _Asked] = {}
        self._times: dict[ModelTopic, int] = {}
        self._bad = 0
        self._starts = 0

    @property
    def progress(self) -> str:
        """For people: how much has come."""
        if self._manifest is None:
            return "its manifest has not come"
        return f"{len(self._chunks)} of {self._manifest.chunks} chunks have come"

    # --- asking -------------------------------------------------------------------------------------------

    def ask(self, now: float) -> Asking:
        """What to subscribe to and to unsubscribe from, given what was asked before."""
        wanted = self._wanted() if self.state == "open" else []
        late = [topic for topic in wanted if topic in self._asked and now >= self._overdue(topic)]
        gone = [topic for topic in self._asked if topic not in wanted] + late
        for topic in gone:
            del self._asked[topic]
        new = [topic for topic in wanted if topic not in self._asked]
        for topic in new:
            self._times[topic] = self._times.get(topic, 0) + 1
            self._asked[topic] = _Asked(now, self._times[topic])
        return Asking(tuple(new), tuple(gone))

    def due(self) -> float | None:
        """When `ask` has to be called next, if nothing comes before; null: nothing is awaited."""
        return min((self._overdue(topic) for topic in self._asked), default=None)

    def asked(self) -> tuple[ModelTopic, ...]:
        """What there are subscriptions to, by what `ask` has said so far."""
        return tuple(self._asked)

    def forget_asked(self) -> None:
        """The connection is gone, and with it the subscriptions; `ask` begins with all that is missing."""
        self._asked.clear()

    def _overdue(self, topic: ModelTopic) -> float:
        asked = self._asked[topic]
        return asked.at + min(REASK_MOST, self._reask * 2.0 ** min(asked.times - 1, 10))

    def _wanted(self) -> list[ModelTopic]:
        short = self.digest[:12]
        wanted: list[ModelTopic] = []
        if self._manifest is None:
            wanted.append(t.ManifestTopic(short))
            if 0 not in self._chunks:
                # Every model has a chunk 0: asked for at once it spares a small one a round trip.
                wanted.append(t.ChunkTopic(short, 0))
            return wanted
        while self._lowest in self._chunks:
            self._lowest += 1
        for index in range(self._lowest, self._manifest.chunks):
            if index not in self._chunks:
                wanted.append(t.ChunkTopic(short, index))
                if len(wanted) == self._window:
                    break
        return wanted

    # --- taking -------------------------------------------------------------------------------------------

    def take(self, message: m.ModelManifest | m.ModelChunk) -> None:
        """A manifest or a chunk, of whatever model, as often as it likes to come."""
        if self.state != "open":
            return
        if message.digest != self.digest:
            # The topic has twelve digits of the digest only.
            self._count_bad(f"digest: {message.digest[:12]}…, expected {self.digest[:12]}…")
        elif isinstance(message, m.ModelManifest):
            self._take_manifest(message)
        else:
            self._take_chunk(message)
        if self._manifest is not None and len(self._chunks) == self._manifest.chunks and self.state == "open":
            self._finish(self._manifest)

    def refuse(self, why: str) -> None:
        """Something came on one of its topics that is no message at all."""
        if self.state == "open":
            self._count_bad(why)

    def cleared(self) -> None:
        """One of its topics was cleared at the broker: the model is superseded, unless it is here already."""
        if self.state == "open":
            self.state = "superseded"
            self.failure = "it was superseded by a newer version"
            self._let_go()

    def _take_manifest(self, message: m.ModelManifest) -> None:
        if self._manifest is not None:
            return
        try:
            self._manifests = check_manifest(message, self._max_bytes)
        except TransferError as error:
            self._count_bad(str(error))
            return
        self._manifest = message
        early, self._chunks = self._chunks, {}
        for index, data in early.items():
            if index < message.chunks and len(data) == _length(message, index):
                self._chunks[index] = data

    def _take_chunk(self, message: m.ModelChunk) -> None:
        manifest, index, data = self._manifest, message.index, message.data
        if index in self._chunks:
            return
        if zlib.crc32(data) != message.crc32:
            self._count_bad(f"chunk {index}: crc32 does not fit its {len(data)} bytes")
        elif manifest is None:
            # Only what was asked for is kept before the manifest says what there is.
            if index == 0 and len(data) <= self._max_bytes:
                self._chunks[0] = data
        elif index >= manifest.chunks:
            self._count_bad(f"chunk {index}: there are {manifest.chunks}")
        elif len(data) != _length(manifest, index):
            expected = _length(manifest, index)
            self._count_bad(f"chunk {index}: {len(data)} bytes, expected {expected}")
        else:
            self._chunks[index] = data

    def _finish(self, manifest: m.ModelManifest) -> None:
        # A model of one chunk is not copied.
        whole = (
            self._chunks[0]
            if len(self._chunks) == 1
            else b"".join(self._chunks[i] for i in range(manifest.chunks))
        )
        view, start, sections = memoryview(whole), 0, []
        for section, arrays in zip(manifest.sections, self._manifests, strict=True):
            alone = start == 0 and section.size == len(whole)
            data = whole if alone else view[start : start + section.size]
            sections.append(ModelSection(section.name, arrays, data, section.encoding))
            start += section.size
        if model_digest(sections) == self.digest:
            self.model = tuple(sections)
            self.state = "complete"
            self._let_go()
            return
        self._starts += 1
        self._let_go()
        for asked in self._asked.values():
            asked.at = -math.inf
        if self._starts >= MAX_STARTS:
            self._fail(f"all chunks came {self._starts} times, and their digest is not that of the model")

    def _count_bad(self, why: str) -> None:
        self._bad += 1
        if self._bad >= MAX_BAD:
            self._fail(f"{self._bad} messages did not fit, the last one: {why}")

    def _fail(self, why: str) -> None:
        self.state, self.failure = "failed", why
        self._let_go()

    def _let_go(self) -> None:
        self._manifest, self._manifests, self._chunks, self._lowest = None, (), {}, 0


def _length(manifest: m.ModelManifest, index: int) -> int:
    return min(manifest.chunk_size, manifest.size - index * manifest.chunk_size)
