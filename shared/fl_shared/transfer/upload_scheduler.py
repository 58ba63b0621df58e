"""PURE: schedules the uploads of all updates that edges have offered (protocol, section 6).

The receiver is in control. It grants chunks to a few offers at a time, in the order in which they came, and
never more than a window over all of them: so a broker with default limits loses nothing, and the data in
flight is bounded. Chunks that do not arrive are granted again. The scheduler never sees bytes: the caller
stores them.

Times are seconds of a monotonic clock. An `UploadScheduler` is told everything and does nothing by itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from fl_shared.system.backoff import backoff
from fl_shared.transfer.chunk_pace import ChunkPace

GRANT_WINDOW: Final = 64
"""Chunks that may be granted to all edges together."""
GRANT_WINDOW_BYTES: Final = 16 * 2**20
"""Bytes that may be granted to all edges together, or one chunk: they may all be in the inbox at once."""
MAX_PAIR_BYTES: Final = 256 * 2**20
"""Bytes of two offers that may be active together: one arrives while the other is checked and folded.

Larger ones are active one at a time.
"""
MAX_ACTIVE_BYTES: Final = 16 * 2**20
"""Bytes of three or more offers that may be active together. This bounds the memory that uploads use."""
GRANT_TIMEOUT: Final = 5.0
"""Seconds without a chunk until what has been granted is granted again; doubles up to `MAX_GRANT_TIMEOUT`."""
MAX_GRANT_TIMEOUT: Final = 30.0
MAX_TIMEOUTS: Final = 2
"""An offer makes room for another one after this many timeouts in a row."""
TIME_SLICE: Final = 30.0
"""Seconds after which an incomplete upload makes room for those that wait, and is queued behind them.

So an edge that sends slowly, or only pretends to send, does not delay the others. The upload keeps the chunks
that have arrived, and continues when its turn comes again.
"""

ChunkDecision = Literal["keep", "duplicate", "not-granted", "wrong-size"]


@dataclass(frozen=True, slots=True)
class UploadOffer:
    """One offered update: ``size`` bytes in ``chunks`` chunks of ``chunk_size`` bytes.

    The last chunk may be shorter than the others.
    """

    client: str
    session: str
    round: int
    digest: str
    size: int
    chunk_size: int
    chunks: int

    def __post_init__(self) -> None:
        expected = max(1, -(-self.size // self.chunk_size))
        if self.chunks != expected:
            raise ValueError(f"chunks: {self.chunks}, but size and chunk_size give {expected}")

    def chunk_length(self, index: int) -> int:
        """The number of bytes of chunk ``index``; the last one may be shorter than the others."""
        return min(self.chunk_size, self.size - index * self.chunk_size)


@dataclass(frozen=True, slots=True)
class ChunkGrant:
    """Permits ``offer.session`` of ``offer.client`` to send these chunks, once each."""

    offer: UploadOffer
    chunks: tuple[int, ...]


@dataclass(slots=True)
class _ScheduledUpload:
    offer: UploadOffer
    next_index: int = 0
    """The first chunk that has never been granted."""
    lapsed: list[int] = field(default_factory=list)
    """Chunks whose grant has timed out, to be granted again from the end of the list."""
    granted: dict[int, float] = field(default_factory=dict)
    """Chunks that are granted and have not arrived, with the time of the grant."""
    received: bytearray = field(default_factory=bytearray)
    """One byte for each chunk, 1 if it has arrived. Empty before the first turn, to save memory."""
    received_count: int = 0
    pace: ChunkPace = field(default_factory=ChunkPace)
    active_since: float = 0.0
    """When the upload's turn began."""
    timeouts: int = 0
    recovery_chunks: int = 0
    """Chunks that must arrive before the timeouts are forgotten: one now and then is no progress."""

    def next_chunks(self) -> Iterator[int]:
        while self.lapsed:
            index = self.lapsed.pop()
            if not self.received[index]:
                yield index
        while self.next_index < self.offer.chunks:
            index = self.next_index
            self.next_index += 1
            if not self.received[index]:
                yield index

    def expire_grants(self) -> None:
        """Counts a timeout if chunks were granted, and marks them to be granted again."""
        if self.granted:
            self.timeouts += 1
            self.recovery_chunks = len(self.granted)
        self.lapsed += sorted(self.granted, reverse=True)
        self.granted.clear()

    @property
    def has_more(self) -> bool:
        return bool(self.lapsed) or self.next_index < self.offer.chunks

    @property
    def complete(self) -> bool:
        return self.received_count == self.offer.chunks


class UploadScheduler:
    """The offers of the open round, at most one for each client."""

    def __init__(
        self,
        window: int = GRANT_WINDOW,
        active_bytes: int = MAX_ACTIVE_BYTES,
        grant_timeout: float = GRANT_TIMEOUT,
    ) -> None:
        self._window = window
        self._active_bytes = active_bytes
        self._grant_timeout = grant_timeout
        self._active: OrderedDict[str, _ScheduledUpload] = OrderedDict()
        self._waiting: OrderedDict[str, _ScheduledUpload] = OrderedDict()
        # Kept up to date, not added up: hundreds of small uploads are active, and each chunk asks.
        self._ungranted: OrderedDict[str, _ScheduledUpload] = OrderedDict()
        """Active uploads with chunks that are not granted."""
        self._active_size = 0
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._due = -math.inf
        """Nothing is overdue, and nothing gives way, before this time."""
        self.overdue_grants = 0
        """How often chunks of a grant did not arrive in time, in all uploads so far."""

    @property
    def in_flight(self) -> int:
        """Chunks that are granted and have neither arrived nor timed out; never more than the window."""
        return self._in_flight

    def get(self, client: str) -> UploadOffer | None:
        """The offer of a client, or None if there is none."""
        upload = self._find(client)
        return None if upload is None else upload.offer

    def progress(self, client: str) -> tuple[int, int] | None:
        """The number of chunks of a client's upload that have arrived, and of all; None without an upload."""
        upload = self._find(client)
        return None if upload is None else (upload.received_count, upload.offer.chunks)

    def _find(self, client: str) -> _ScheduledUpload | None:
        return self._active.get(client) or self._waiting.get(client)

    # --- what happens -------------------------------------------------------------------------------------

    def offer(self, offer: UploadOffer, now: float, received: bytes = b"") -> tuple[ChunkGrant, ...]:
        """Adds an offer, new or repeated, and returns the grants that are now possible.

        A repeated offer of the same update keeps the chunks that have arrived; any other offer replaces the
        client's earlier one. ``received``: for a new offer, one byte for each chunk, not 0 if the caller already
        has the chunk. If it has all of them, the upload is complete, and nothing is granted. Raises
        ``ValueError`` if ``received`` has the wrong length.
        """
        upload = self._find(offer.client)
        if upload is not None and same_chunking(upload.offer, offer):
            # The offer is repeated, so the edge did not get the grant, or we did not get its chunks.
            self._expire_grants(upload)
            upload.offer = offer
        else:
            self.remove(offer.client)
            if received and len(received) != offer.chunks:
                raise ValueError(f"received: {len(received)} chunks, expected {offer.chunks}")
            if not self._waiting:
                self._due = -math.inf  # from now on, active ones give way
            received_flags = bytearray(map(bool, received))
            self._waiting[offer.client] = _ScheduledUpload(
                offer, received=received_flags, received_count=sum(received_flags)
            )
        return self._grant(now)

    def check_chunk(
        self, client: str, round_number: int, digest: str, index: int, length: int
    ) -> ChunkDecision:
        """Whether to keep a chunk that has arrived; if so, call `receive_chunk` once it is stored."""
        upload = self._find(client)
        if upload is None or (upload.offer.round, upload.offer.digest) != (round_number, digest):
            return "not-granted"
        if index >= upload.offer.chunks or not upload.received:
            return "not-granted"
        if length != upload.offer.chunk_length(index):
            return "wrong-size"
        if upload.received[index]:
            return "duplicate"
        return "keep" if index < upload.next_index else "not-granted"

    def receive_chunk(
        self, client: str, round_number: int, digest: str, index: int, length: int, now: float
    ) -> ChunkDecision:
        """Records a chunk that has arrived, if the decision is ``keep``; then the caller must store it."""
        verdict = self.check_chunk(client, round_number, digest, index, length)
        upload = self._find(client)
        if verdict != "keep" or upload is None:
            return verdict
        granted_at = upload.granted.pop(index, None)
        if granted_at is not None:
            self._count_in_flight(upload, -1)
            upload.pace.came(granted_at, now)
        upload.received[index] = 1
        upload.received_count += 1
        upload.recovery_chunks -= 1
        if upload.recovery_chunks <= 0 and upload.timeouts:
            upload.timeouts = 0
            self._due = -math.inf
        return "keep"

    def next_grants(self, now: float) -> tuple[ChunkGrant, ...]:
        """The grants that are now possible. Call this after anything has changed, and when it is `due`."""
        if now < self._due:
            return self._grant(now)
        for upload in list(self._active.values()):
            client = upload.offer.client
            if now >= self._overdue_at(upload):
                self.overdue_grants += 1
                self._expire_grants(upload)
                self._active.move_to_end(client)  # the others come first in the next grant
                self._ungranted.move_to_end(client)
            if now >= self._gives_way_at(upload):
                self._expire_grants(upload)
                upload.timeouts = 0
                self._deactivate(client)
                self._waiting[client] = upload
        grants = self._grant(now)
        self._due = self.due()
        return grants

    def due(self) -> float:
        """When `next_grants` does something, although no chunk has come; ∞ for never."""
        uploads = self._active.values()
        return min((min(self._overdue_at(one), self._gives_way_at(one)) for one in uploads), default=math.inf)

    def is_complete(self, client: str) -> bool:
        """Whether all chunks of the client's upload have arrived; False without an upload."""
        upload = self._find(client)
        return upload is not None and upload.complete

    def remove(self, client: str) -> None:
        """Removes the client's upload, if any: it is complete, rejected or no longer of use."""
        upload = self._active.get(client)
        if upload is not None:
            self._count_in_flight(upload, -len(upload.granted))
            self._deactivate(client)
        self._waiting.pop(client, None)

    def _deactivate(self, client: str) -> None:
        self._active_size -= self._active.pop(client).offer.size
        self._ungranted.pop(client, None)

    def clear(self) -> tuple[str, ...]:
        """Removes all uploads, because the round is over. Returns the clients whose uploads these were."""
        clients = (*self._active, *self._waiting)
        self._active.clear()
        self._waiting.clear()
        self._ungranted.clear()
        self._active_size = self._in_flight = self._in_flight_bytes = 0
        return clients

    # --- granting -----------------------------------------------------------------------------------------

    def _expire_grants(self, upload: _ScheduledUpload) -> None:
        self._count_in_flight(upload, -len(upload.granted))
        upload.expire_grants()
        self._due = -math.inf
        if upload.has_more and upload.offer.client in self._active:
            self._ungranted[upload.offer.client] = upload

    def _count_in_flight(self, upload: _ScheduledUpload, chunks: int) -> None:
        self._in_flight += chunks
        self._in_flight_bytes += chunks * upload.offer.chunk_size

    def _overdue_at(self, upload: _ScheduledUpload) -> float:
        """When chunks that were granted are granted again; ∞ if all have come."""
        if not upload.granted:  # of thousands of small uploads, most
            return math.inf
        granted_at = min(upload.granted.values())
        delay = backoff(upload.timeouts, self._grant_timeout, MAX_GRANT_TIMEOUT)
        return max(granted_at, upload.pace.last_at) + max(delay, min(upload.pace.wait, MAX_GRANT_TIMEOUT))

    def _gives_way_at(self, upload: _ScheduledUpload) -> float:
        """When an active upload makes room: ∞ if none waits, -∞ if its grants have timed out too often."""
        if not self._waiting or upload.complete:
            return math.inf
        return -math.inf if upload.timeouts >= MAX_TIMEOUTS else upload.active_since + TIME_SLICE

    def _free_window(self, chunk_size: int) -> int:
        """How many more chunks of ``chunk_size`` bytes may be granted now."""
        if self._in_flight == 0:
            return max(1, min(self._window, GRANT_WINDOW_BYTES // chunk_size))
        return min(self._window - self._in_flight, (GRANT_WINDOW_BYTES - self._in_flight_bytes) // chunk_size)

    def _activate(self, now: float) -> None:
        while self._waiting:
            client, upload = next(iter(self._waiting.items()))
            byte_limit = MAX_PAIR_BYTES if len(self._active) == 1 else self._active_bytes
            if self._active and self._active_size + upload.offer.size > byte_limit:
                return
            self._active_size += upload.offer.size
            upload.active_since = now
            upload.received = upload.received or bytearray(upload.offer.chunks)
            self._active[client] = self._ungranted[client] = self._waiting.pop(client)
            self._due = min(self._due, self._gives_way_at(upload))

    def _grant(self, now: float) -> tuple[ChunkGrant, ...]:
        self._activate(now)
        grants: list[ChunkGrant] = []
        finished: list[str] = []
        for upload in self._ungranted.values():
            # A grant has at least a quarter of a window, if that many are left: a reply for each chunk would
            # be a flood.
            free_chunks = self._free_window(upload.offer.chunk_size)
            if free_chunks <= 0:
                break
            min_room = (
                min(self._window, GRANT_WINDOW_BYTES // upload.offer.chunk_size, upload.offer.chunks) // 4
            )
            if not upload.has_more or (upload.granted and free_chunks < min_room):
                continue
            if upload.timeouts and len(self._active) > 1:
                # Chunks that do not arrive must not take the room of others that would.
                free_chunks = min(free_chunks, max(1, min_room))
            chunks: list[int] = []
            for index in upload.next_chunks():
                chunks.append(index)
                if len(chunks) == free_chunks:
                    break
            upload.granted.update(dict.fromkeys(chunks, now))
            self._count_in_flight(upload, len(chunks))
            if not upload.has_more:
                finished.append(upload.offer.client)
            if chunks:
                self._due = min(self._due, self._overdue_at(upload))
                grants.append(ChunkGrant(upload.offer, tuple(chunks)))
        for client in finished:
            del self._ungranted[client]
        return tuple(grants)


def same_chunking(one: UploadOffer, other: UploadOffer) -> bool:
    """Whether two offers are of the same update in the same chunks, so that either's chunks fit the other."""
    return (one.round, one.digest, one.size, one.chunk_size) == (
        other.round,
        other.digest,
        other.size,
        other.chunk_size,
    )
