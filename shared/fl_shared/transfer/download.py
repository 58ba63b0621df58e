"""PURE: a model from the messages that have come of it (`ModelDownload`); the way to the broker is `publication`.

The receiver drives: it asks for a few topics at a time, takes what comes in any order, and asks for what does not
come again. Nothing here knows a broker or a clock; ``now`` is seconds on one that only grows.

Each message costs the same, however many there are: chunks are put where they belong in one buffer, and hashed as
soon as all before them are here.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.backoff import backoff
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.assembly import Assembly
from fl_shared.transfer.publication import (
    MAX_MODEL_BYTES,
    ModelDataTopic,
    TransferError,
    check_manifest,
)

REQUEST_WINDOW: Final = 16
"""Topics that are asked for at once at most: brokers drop silently what is over a subscriber's queue."""
REQUEST_WINDOW_BYTES: Final = 16 * 2**20
"""And fewer (but two), where that many chunks are more than this."""
SUBSCRIBE_BATCH: Final = 8
"""Filters of one SUBSCRIBE packet. The next is sent when so many of the window have come."""
REQUEST_TIMEOUT: Final = 5.0
"""Seconds without anything, after which requests are repeated; doubling to `MAX_REQUEST_TIMEOUT`."""
MAX_REQUEST_TIMEOUT: Final = 30.0
SLOW_LINK_FACTOR: Final = 3.0
"""On a slow link it is waited so many times as long as the last chunks took, if that is more."""
MAX_INVALID_MESSAGES: Final = 16
"""So many messages that do not fit end a download."""
MAX_ATTEMPTS: Final = 3
"""So often is it begun anew when the whole has another digest than it should."""


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """What to tell the broker now: first ``unsubscribe``, then ``subscribe`` (it gives what is retained)."""

    subscribe: tuple[ModelDataTopic, ...]
    unsubscribe: tuple[ModelDataTopic, ...]


@dataclass(slots=True)
class _TopicRequest:
    at: float
    times: int
    overtaken: int = 0
    """How much has come that was asked for later."""


class ModelDownload:
    """One model on its way here. Feed it (`take`, `cleared`) and do what `ask` says, after that and at `due`.

    ``state`` is ``open`` until the model is ``complete`` (see `model`), ``superseded`` (the broker's copy was
    cleared) or ``failed`` (see `failure`). ``allocate`` gives the writable buffer of so many bytes in which the
    model is put together, and which its sections are views of.
    """

    def __init__(
        self,
        digest: str,
        *,
        window: int = REQUEST_WINDOW,
        max_bytes: int = MAX_MODEL_BYTES,
        reask: float = REQUEST_TIMEOUT,
        allocate: Callable[[int], bytearray | memoryview] = bytearray,
    ) -> None:
        self.digest = digest
        self.state: Literal["open", "complete", "superseded", "failed"] = "open"
        self.failure = ""
        self.model: tuple[ModelSection, ...] = ()
        self._window = window
        self._max_bytes = max_bytes
        self._reask = reask
        self._allocate = allocate
        self._assembly: Assembly | None = None
        self._early: bytes | None = None
        """Chunk 0, if it came before the manifest."""
        self._next = 0
        """Chunks from here on were never asked for."""
        self._again: deque[int] = deque()
        self._asked: dict[ModelDataTopic, _TopicRequest] = {}
        self._done: list[ModelDataTopic] = []
        """What has come, and is still subscribed to."""
        self._came_at = -math.inf
        self._pace = 0.0
        self._bad = 0
        self._why = ""
        self._starts = 0

    @property
    def progress(self) -> str:
        """For people: how much has come."""
        if self._assembly is None:
            return "its manifest has not arrived"
        return f"{self._assembly.count} of {self._assembly.manifest.chunks} chunks have arrived"

    # --- asking -------------------------------------------------------------------------------------------

    def ask(self, now: float) -> SubscriptionChange:
        """What to subscribe to and to unsubscribe from, given what was asked before."""
        if self.state != "open":
            gone, self._done = [*self._done, *self._asked], []
            self._asked.clear()
            return SubscriptionChange((), tuple(gone))
        again = self._late(now)
        for topic in again:
            self._asked[topic] = _TopicRequest(now, self._asked[topic].times + 1)
        new = self._new_topics()
        for topic in new:
            self._asked[topic] = _TopicRequest(now, 1)
        gone, new = [*again], [*again, *new]
        if new or len(self._done) >= SUBSCRIBE_BATCH:
            gone, self._done = self._done + gone, []
        return SubscriptionChange(tuple(new), tuple(gone))

    def due(self) -> float | None:
        """When `ask` has to be called next, if nothing comes before; null: nothing is awaited."""
        return min((self._overdue(asked) for asked in self._asked.values()), default=None)

    def asked(self) -> tuple[ModelDataTopic, ...]:
        """What there are subscriptions to, by what `ask` has said so far."""
        return (*self._done, *self._asked)

    def forget_asked(self) -> None:
        """The connection is gone, and with it the subscriptions; `ask` begins with all that is missing."""
        self._again.extendleft(
            topic.index
            for topic in reversed(self._asked)
            if isinstance(topic, t.ChunkTopic) and self._assembly is not None
        )
        self._asked.clear()
        self._done.clear()

    def _overdue(self, asked: _TopicRequest) -> float:
        patience = backoff(
            asked.times - 1, max(self._reask, SLOW_LINK_FACTOR * self._pace), MAX_REQUEST_TIMEOUT
        )
        return max(asked.at, self._came_at) + max(self._reask, patience)

    def _late(self, now: float) -> list[ModelDataTopic]:
        """What is to be asked for again."""
        # A broker sends in the order of the subscriptions, mostly: what others have overtaken is lost.
        late = [
            topic
            for topic, asked in self._asked.items()
            if now >= self._overdue(asked) or asked.overtaken >= self._window
        ]
        if late:
            # A broker that drops what is over its queue is given less to queue.
            self._window = max(2, self._window // 2)
            for topic in late[self._window :]:
                # On a slow link they are on their way still.
                self._asked[topic] = _TopicRequest(now, self._asked[topic].times)
        return late[: self._window]

    def _new_topics(self) -> list[ModelDataTopic]:
        """The next part of the window, once enough of it is free: a packet to the broker a chunk would be a waste."""
        short = self.digest[:12]
        if self._assembly is None:
            # Every model has a chunk 0: asked for at once it spares a small one a round trip.
            wanted: list[ModelDataTopic] = [t.ManifestTopic(short)]
            wanted += [] if self._early is not None else [t.ChunkTopic(short, 0)]
            return [topic for topic in wanted if topic not in self._asked]
        manifest = self._assembly.manifest
        window = max(2, min(self._window, REQUEST_WINDOW_BYTES // manifest.chunk_size))
        free = window - len(self._asked)
        if self._asked and free < min(SUBSCRIBE_BATCH, window // 2):
            return []
        new: list[ModelDataTopic] = []
        while len(new) < free and (index := self._next_missing()) is not None:
            new.append(t.ChunkTopic(short, index))
        return new

    def _next_missing(self) -> int | None:
        assert self._assembly is not None
        while self._again:
            index = self._again.popleft()
            if not self._assembly.here[index]:
                return index
        while self._next < self._assembly.manifest.chunks:
            index, self._next = self._next, self._next + 1
            if not self._assembly.here[index] and t.ChunkTopic(self.digest[:12], index) not in self._asked:
                return index
        return None

    # --- taking -------------------------------------------------------------------------------------------

    def take(self, message: m.ModelManifest | m.ModelChunk, now: float) -> str | None:
        """A manifest or a chunk, of whatever model, as often as it likes to come. Gives what was wrong with it, if
        something was."""
        if self.state != "open":
            return None
        bad = self._bad
        if message.digest != self.digest:
            # The topic has twelve digits of the digest only.
            self._count_bad(f"digest: {message.digest[:12]}…, expected {self.digest[:12]}…")
        elif isinstance(message, m.ModelManifest):
            self._take_manifest(message, now)
        else:
            self._take_chunk(message, now)
        if self.state == "open" and self._assembly is not None and self._assembly.is_whole:
            self._finish(self._assembly)
        return self._why if self._bad > bad else None

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

    def _take_manifest(self, message: m.ModelManifest, now: float) -> None:
        if self._assembly is not None:
            return
        try:
            manifests = check_manifest(message, self._max_bytes)
        except TransferError as error:
            self._count_bad(str(error))
            return
        try:
            buffer = self._allocate(message.size)
        except (OSError, MemoryError) as error:
            # Its size is a peer's word; a small device may have no room for what is no model at all.
            self._fail(f"size: {message.size} bytes, but there is not enough memory here ({error})")
            return
        self._assembly = Assembly(message, manifests, buffer)
        self._came(t.ManifestTopic(self.digest[:12]), now)
        early, self._early = self._early, None
        if early is not None and len(early) == self._assembly.length(0):
            self._assembly.put(0, early)

    def _take_chunk(self, message: m.ModelChunk, now: float) -> None:
        assembly, index, data = self._assembly, message.index, message.data
        topic = t.ChunkTopic(self.digest[:12], index)
        if (self._early is not None and index == 0) or (assembly and assembly.has(index)):
            self._came(topic, now)
        elif zlib.crc32(data) != message.crc32:
            self._count_bad(f"chunk {index}: crc32: {message.crc32} does not match its {len(data)} bytes")
        elif assembly is None:
            # Only what was asked for is kept before the manifest says what there is.
            if index == 0 and len(data) <= self._max_bytes:
                self._early = data
                self._came(topic, now)
        elif index >= assembly.manifest.chunks:
            self._count_bad(f"chunk {index}: the model has only {assembly.manifest.chunks} chunks")
        elif len(data) != assembly.length(index):
            self._count_bad(f"chunk {index}: {len(data)} bytes, expected {assembly.length(index)}")
        else:
            assembly.put(index, data)
            self._came(topic, now)

    def _came(self, topic: ModelDataTopic, now: float) -> None:
        asked = self._asked.pop(topic, None)
        since = max(self._came_at, -math.inf if asked is None else asked.at)
        self._pace = max(self._pace / 2, now - since) if since > -math.inf else 0.0
        self._came_at = now
        if asked is None:
            return  # for the second time, or nobody asked
        self._done.append(topic)
        for other in self._asked.values():
            other.overtaken += other.at < asked.at

    def _finish(self, assembly: Assembly) -> None:
        if assembly.digest() == self.digest:
            self.model = assembly.sections()
            self.state = "complete"
            self._let_go()
            return
        self._starts += 1
        self._let_go()
        if self._starts >= MAX_ATTEMPTS:
            self._fail(f"all chunks arrived {self._starts} times, but their digest is not the model's")

    def _count_bad(self, why: str) -> None:
        self._bad += 1
        self._why = why
        if self._bad >= MAX_INVALID_MESSAGES:
            self._fail(f"{self._bad} messages were not valid, the last one: {why}")

    def _fail(self, why: str) -> None:
        self.state, self.failure = "failed", why
        self._let_go()

    def _let_go(self) -> None:
        """Begins anew, if it goes on at all: what was asked for is asked for again."""
        self._assembly, self._early = None, None
        self._done += self._asked
        self._asked.clear()
        self._again.clear()
        self._next = 0
