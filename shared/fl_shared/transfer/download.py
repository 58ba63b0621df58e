"""PURE: receives a model from its messages (`ModelDownload`); `publication` is the sending side.

The receiver is in control: it asks for a few topics at a time, accepts their messages in any order, and asks
again for those that do not arrive. Nothing here knows a broker or a clock; ``now`` is in seconds of a
monotonic clock.

The cost of a message does not depend on how many there are: each chunk is written to its place in one buffer,
and hashed as soon as all chunks before it have arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.backoff import backoff
from fl_shared.tensors.sections import WEIGHTS, ModelSection
from fl_shared.transfer.assembly import Assembly
from fl_shared.transfer.chunk_pace import ChunkPace
from fl_shared.transfer.publication import (
    MAX_MODEL_BYTES,
    ModelDataTopic,
    TransferError,
    check_manifest,
)

REQUEST_WINDOW: Final = 16
"""How many topics are asked for at once: brokers silently drop messages that overflow a client's queue."""
REQUEST_WINDOW_BYTES: Final = 16 * 2**20
"""Bytes of chunks that are asked for at once: with large chunks, fewer topics (but at least two)."""
SUBSCRIBE_BATCH: Final = 8
"""Filters in one SUBSCRIBE packet. The next one follows when that many topics of the window have arrived."""
REQUEST_TIMEOUT: Final = 5.0
"""Seconds without a message, or bytes of one, until requests are repeated; doubles up to `MAX_REQUEST_TIMEOUT`."""
MAX_REQUEST_TIMEOUT: Final = 30.0
MAX_INVALID_MESSAGES: Final = 16
"""A download fails after this many messages that are not valid."""
MAX_ATTEMPTS: Final = 3
"""A download fails if the complete model has the wrong digest this many times; until then it starts again."""


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """What to send now: first ``unsubscribe``, then ``subscribe``, which brings the retained messages."""

    subscribe: tuple[ModelDataTopic, ...]
    unsubscribe: tuple[ModelDataTopic, ...]


@dataclass(slots=True)
class _TopicRequest:
    requested_at: float
    attempts: int
    later_received: int = 0
    """How many topics that were asked for later have already arrived."""


class ModelDownload:
    """Receives one model. Pass messages to `receive` and `cleared`.

    After that, and at the time that `due` gives, change the subscriptions as `subscription_changes` says.
    ``state`` is ``open`` until the model is ``complete`` (see ``model``), ``superseded`` (the broker's copy
    was cleared) or ``failed`` (see ``failure``). ``allocate`` returns a writable buffer of a given number of
    bytes; the model is assembled in it, and its sections are views of it.
    """

    def __init__(
        self,
        digest: str,
        *,
        window: int = REQUEST_WINDOW,
        max_bytes: int = MAX_MODEL_BYTES,
        request_timeout: float = REQUEST_TIMEOUT,
        allocate: Callable[[int], bytearray | memoryview] = bytearray,
        section: str = WEIGHTS,
    ) -> None:
        """``section``: the name of one that it must have."""
        self._section = section
        self.digest = digest
        self.state: Literal["open", "complete", "superseded", "failed"] = "open"
        self.failure = ""
        self.model: tuple[ModelSection, ...] = ()
        self._window = window
        self._max_bytes = max_bytes
        self._request_timeout = request_timeout
        self._allocate = allocate
        self._assembly: Assembly | None = None
        self._early_chunk: bytes | None = None
        """Chunk 0, if it arrived before the manifest."""
        self._next_chunk = 0
        """The first chunk that has never been asked for."""
        self._retry_chunks: deque[int] = deque()
        self._requests: dict[ModelDataTopic, _TopicRequest] = {}
        self._received_topics: list[ModelDataTopic] = []
        """Topics that have arrived, but are still subscribed to."""
        self._pace = ChunkPace()
        self._bytes_came_at = -math.inf
        self._invalid_count = 0
        self._last_error = ""
        self._attempts = 0
        self.overdue_topics = 0
        """How often a message did not arrive in time after its subscription."""

    @property
    def progress(self) -> str:
        """How much of the model has arrived, as text for people."""
        if self._assembly is None:
            return "its manifest has not arrived"
        return f"{self._assembly.received_count} of {self._assembly.manifest.chunks} chunks have arrived"

    def message_under_way(self, at: float) -> None:
        """Records that a message is still coming, of which bytes came ``at``: others can only come behind it."""
        self._bytes_came_at = max(self._bytes_came_at, at)

    # --- asking -------------------------------------------------------------------------------------------

    def subscription_changes(self, now: float) -> SubscriptionChange:
        """The subscriptions to change now, which then count as made. Overdue topics are asked for again."""
        if self.state != "open":
            to_unsubscribe, self._received_topics = [*self._received_topics, *self._requests], []
            self._requests.clear()
            return SubscriptionChange((), tuple(to_unsubscribe))
        topics_to_retry = self._topics_to_retry(now)
        for topic in topics_to_retry:
            self._requests[topic] = _TopicRequest(now, self._requests[topic].attempts + 1)
        new = self._new_topics()
        for topic in new:
            self._requests[topic] = _TopicRequest(now, 1)
        to_unsubscribe, new = [*topics_to_retry], [*topics_to_retry, *new]
        if new or len(self._received_topics) >= SUBSCRIBE_BATCH:
            to_unsubscribe, self._received_topics = self._received_topics + to_unsubscribe, []
        return SubscriptionChange(tuple(new), tuple(to_unsubscribe))

    def due(self) -> float | None:
        """When to call `subscription_changes` if no message arrives before; None if nothing is awaited."""
        return min((self._retry_at(request) for request in self._requests.values()), default=None)

    def subscribed_topics(self) -> tuple[ModelDataTopic, ...]:
        """The topics that are subscribed to, according to `subscription_changes` so far."""
        return (*self._received_topics, *self._requests)

    def reset_requests(self) -> None:
        """Forgets the subscriptions, which ended with the connection; missing topics are asked for again."""
        self._retry_chunks.extendleft(
            topic.index
            for topic in reversed(self._requests)
            if isinstance(topic, t.ChunkTopic) and self._assembly is not None
        )
        self._requests.clear()
        self._received_topics.clear()

    def _retry_at(self, request: _TopicRequest) -> float:
        delay = backoff(
            request.attempts - 1,
            max(self._request_timeout, self._pace.wait),
            MAX_REQUEST_TIMEOUT,
        )
        since = max(request.requested_at, self._pace.last_at, self._bytes_came_at)
        return since + max(self._request_timeout, delay)

    def _topics_to_retry(self, now: float) -> list[ModelDataTopic]:
        """The topics to ask for again; also halves the window if there are any."""
        # A broker mostly sends in the order of the subscriptions: a topic that many later ones have overtaken
        # is lost.
        overdue = [
            topic
            for topic, request in self._requests.items()
            if now >= self._retry_at(request) or request.later_received >= self._window
        ]
        if overdue:
            self.overdue_topics += len(overdue)
            # The broker may have dropped messages that overflowed its queue: give it less to queue.
            self._window = max(2, self._window // 2)
            for topic in overdue[self._window :]:
                # On a slow link these may still be on their way.
                self._requests[topic] = _TopicRequest(now, self._requests[topic].attempts)
        return overdue[: self._window]

    def _new_topics(self) -> list[ModelDataTopic]:
        """The topics to ask for next, once enough of the window is free.

        A packet to the broker for each chunk would be a waste.
        """
        digest12 = self.digest[:12]
        if self._assembly is None:
            # Every model has a chunk 0; asking for it at once saves a round trip for a small model.
            topics: list[ModelDataTopic] = [t.ManifestTopic(digest12)]
            topics += [] if self._early_chunk is not None else [t.ChunkTopic(digest12, 0)]
            return [topic for topic in topics if topic not in self._requests]
        manifest = self._assembly.manifest
        window = max(2, min(self._window, REQUEST_WINDOW_BYTES // manifest.chunk_size))
        free_slots = window - len(self._requests)
        if self._requests and free_slots < min(SUBSCRIBE_BATCH, window // 2):
            return []
        new: list[ModelDataTopic] = []
        while len(new) < free_slots and (index := self._next_missing()) is not None:
            new.append(t.ChunkTopic(digest12, index))
        return new

    def _next_missing(self) -> int | None:
        assert self._assembly is not None
        while self._retry_chunks:
            index = self._retry_chunks.popleft()
            if not self._assembly.received[index]:
                return index
        while self._next_chunk < self._assembly.manifest.chunks:
            index, self._next_chunk = self._next_chunk, self._next_chunk + 1
            if (
                not self._assembly.received[index]
                and t.ChunkTopic(self.digest[:12], index) not in self._requests
            ):
                return index
        return None

    # --- taking -------------------------------------------------------------------------------------------

    def receive(self, message: m.ModelManifest | m.ModelChunk, now: float) -> str | None:
        """Takes a manifest or a chunk. Returns what was wrong with it, or None.

        It may be of another model (which is wrong) or come more than once (which is not).
        """
        if self.state != "open":
            return None
        invalid_before = self._invalid_count
        if message.digest != self.digest:
            # The topic has only the first twelve digits of the digest, so this can happen.
            self._record_invalid(f"digest: {message.digest[:12]}…, expected {self.digest[:12]}…")
        elif isinstance(message, m.ModelManifest):
            self._receive_manifest(message, now)
        else:
            self._receive_chunk(message, now)
        if self.state == "open" and self._assembly is not None and self._assembly.is_complete:
            self._finish(self._assembly)
        return self._last_error if self._invalid_count > invalid_before else None

    def count_invalid(self, reason: str) -> None:
        """Counts a payload on one of the model's topics that could not be decoded; ``reason`` is the reason."""
        if self.state == "open":
            self._record_invalid(reason)

    def cleared(self) -> None:
        """Records that one of the model's topics was cleared at the broker.

        The model is superseded, unless it is already complete.
        """
        if self.state == "open":
            self.state = "superseded"
            self.failure = "it was superseded by a newer version"
            self._reset()

    def _receive_manifest(self, message: m.ModelManifest, now: float) -> None:
        if self._assembly is not None:
            return
        try:
            manifests = check_manifest(message, self._max_bytes, self._section)
        except TransferError as error:
            self._record_invalid(str(error))
            return
        try:
            buffer = self._allocate(message.size)
        except (OSError, MemoryError) as error:
            # The size is a claim of a peer; a small device may not have that much memory.
            self._fail(f"size: {message.size} bytes, but there is not enough memory here ({error})")
            return
        self._assembly = Assembly(message, manifests, buffer)
        self._mark_received(t.ManifestTopic(self.digest[:12]), now)
        early_chunk, self._early_chunk = self._early_chunk, None
        if early_chunk is not None and len(early_chunk) == self._assembly.chunk_length(0):
            self._assembly.put(0, early_chunk)

    def _receive_chunk(self, message: m.ModelChunk, now: float) -> None:
        assembly, index, data = self._assembly, message.index, message.data
        topic = t.ChunkTopic(self.digest[:12], index)
        if (self._early_chunk is not None and index == 0) or (assembly and assembly.has(index)):
            self._mark_received(topic, now)
        elif assembly is None:
            # Before the manifest has come, only chunk 0 has been asked for, so no other chunk is kept.
            if index == 0 and len(data) <= self._max_bytes:
                self._early_chunk = data
                self._mark_received(topic, now)
        elif index >= assembly.manifest.chunks:
            self._record_invalid(f"chunk {index}: the model has only {assembly.manifest.chunks} chunks")
        elif len(data) != assembly.chunk_length(index):
            self._record_invalid(f"chunk {index}: {len(data)} bytes, expected {assembly.chunk_length(index)}")
        else:
            assembly.put(index, data)
            self._mark_received(topic, now)

    def _mark_received(self, topic: ModelDataTopic, now: float) -> None:
        request = self._requests.pop(topic, None)
        self._pace.came(-math.inf if request is None else request.requested_at, now)
        if request is None:
            return  # it has arrived before, or was not asked for
        self._received_topics.append(topic)
        for other in self._requests.values():
            other.later_received += other.requested_at < request.requested_at

    def _finish(self, assembly: Assembly) -> None:
        if assembly.digest() == self.digest:
            self.model = assembly.sections()
            self.state = "complete"
            self._reset()
            return
        self._attempts += 1
        self._reset()
        if self._attempts >= MAX_ATTEMPTS:
            self._fail(f"all chunks arrived {self._attempts} times, but their digest is not the model's")

    def _record_invalid(self, reason: str) -> None:
        self._invalid_count += 1
        self._last_error = reason
        if self._invalid_count >= MAX_INVALID_MESSAGES:
            self._fail(f"{self._invalid_count} messages were not valid, the last one: {reason}")

    def _fail(self, reason: str) -> None:
        self.state, self.failure = "failed", reason
        self._reset()

    def _reset(self) -> None:
        """Discards what has arrived, so that a download that is still open asks for everything again."""
        self._assembly, self._early_chunk = None, None
        self._received_topics += self._requests
        self._requests.clear()
        self._retry_chunks.clear()
        self._next_chunk = 0
