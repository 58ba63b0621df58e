"""PURE: what may be sent now, of all the updates that edges have offered (protocol, section 6).

The receiver drives. It grants chunks to a few offers at a time, in the order in which they came, and never more
than a window over all of them: so a broker with default limits loses nothing, and what is on its way is bounded.
Whatever does not come is granted again. Bytes are opaque here: the caller keeps them where they belong.

Times are seconds on a clock that only grows. `UploadScheduler` is told everything and does nothing by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from fl_shared.system.backoff import backoff

GRANT_WINDOW: Final = 64
"""Chunks granted over all edges together."""
GRANT_WINDOW_BYTES: Final = 16 * 2**20
"""And no more bytes than these, or one chunk: they may all lie in the receiver's inbox at once."""
MAX_PAIR_BYTES: Final = 256 * 2**20
"""Two offers are granted to at a time if they have no more bytes than this together: one comes in while the other is
checked and folded. Larger ones come one by one."""
MAX_ACTIVE_BYTES: Final = 16 * 2**20
"""More than two, if they have no more bytes than this together. So much memory do uploads take."""
GRANT_TIMEOUT: Final = 5.0
"""Seconds after which what was granted and has not come is granted again; doubling up to `MAX_GRANT_TIMEOUT`."""
MAX_GRANT_TIMEOUT: Final = 30.0
MAX_TIMEOUTS: Final = 2
"""So often in a row what was granted did not come in time, and the offer makes room for another one."""
TIME_SLICE: Final = 30.0
"""Seconds after which an upload that is still not complete makes room for one that waits, and comes after it: whoever
sends slowly, or only seems to send, holds nobody up. It keeps what has come, and goes on when it is its turn again."""

ChunkDecision = Literal["keep", "duplicate", "not-granted", "wrong-size"]


@dataclass(frozen=True, slots=True)
class UploadOffer:
    """One update: ``size`` bytes, cut every ``chunk_size`` into ``chunks``."""

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
        """Bytes of chunk ``index``."""
        return min(self.chunk_size, self.size - index * self.chunk_size)


@dataclass(frozen=True, slots=True)
class ChunkGrant:
    """Tell ``offer.session`` of ``offer.client`` to send these chunks."""

    offer: UploadOffer
    chunks: tuple[int, ...]


@dataclass(slots=True)
class _ScheduledUpload:
    offer: UploadOffer
    next_index: int = 0
    """Chunks from here on were never granted."""
    lapsed: list[int] = field(default_factory=list)
    """Granted once, lapsed, and to be granted anew."""
    granted: dict[int, float] = field(default_factory=dict)
    """On their way, and since when."""
    received: bytearray = field(default_factory=bytearray)
    """One byte a chunk: whether it has come. Empty before its first turn: offers that only wait take no room."""
    received_count: int = 0
    active_since: float = 0.0
    """When its turn began."""
    timeouts: int = 0
    recovery_chunks: int = 0
    """Chunks that must come before it is believed again: one now and then is no progress."""

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
        """What was on its way is not any more."""
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
    """All offers of the open round, at most one a client."""

    def __init__(
        self, window: int = GRANT_WINDOW, active_bytes: int = MAX_ACTIVE_BYTES, regrant: float = GRANT_TIMEOUT
    ) -> None:
        self._window = window
        self._active_bytes = active_bytes
        self._grant_timeout = regrant
        self._active: OrderedDict[str, _ScheduledUpload] = OrderedDict()
        self._waiting: OrderedDict[str, _ScheduledUpload] = OrderedDict()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Chunks granted that have neither come nor lapsed; never above the window."""
        return self._in_flight

    def get(self, client: str) -> UploadOffer | None:
        upload = self._find(client)
        return None if upload is None else upload.offer

    def progress(self, client: str) -> tuple[int, int] | None:
        """(chunks that have come, chunks in all) of a client's upload."""
        upload = self._find(client)
        return None if upload is None else (upload.received_count, upload.offer.chunks)

    def _find(self, client: str) -> _ScheduledUpload | None:
        return self._active.get(client) or self._waiting.get(client)

    # --- what happens -------------------------------------------------------------------------------------

    def offer(self, offer: UploadOffer, now: float, here: bytes = b"") -> tuple[ChunkGrant, ...]:
        """An offer, new or repeated. What the same update has brought already stays; another one replaces it.

        ``here``: of a new one, one byte a chunk, not 0 if the caller has the chunk already. If it has all of them,
        the upload is complete, and nothing is granted.
        """
        upload = self._find(offer.client)
        if upload is not None and same_chunking(upload.offer, offer):
            # Repeated, so what was granted did not reach it, or its chunks did not reach us.
            self._expire_grants(upload)
            upload.offer = offer
        else:
            self.remove(offer.client)
            if here and len(here) != offer.chunks:
                raise ValueError(f"received: {len(here)} chunks, expected {offer.chunks}")
            came = bytearray(map(bool, here))
            self._waiting[offer.client] = _ScheduledUpload(offer, received=came, received_count=sum(came))
        return self._grant(now)

    def check_chunk(
        self, client: str, round_number: int, digest: str, index: int, length: int
    ) -> ChunkDecision:
        """Whether a chunk that has come is to be kept; then `chunk` is to be told that it was."""
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
        self, client: str, round_number: int, digest: str, index: int, length: int
    ) -> ChunkDecision:
        """A chunk has come. If the verdict is ``keep`` it counts as here: the caller must keep it, or has."""
        verdict = self.check_chunk(client, round_number, digest, index, length)
        upload = self._find(client)
        if verdict != "keep" or upload is None:
            return verdict
        if upload.granted.pop(index, None) is not None:
            self._in_flight -= 1
        upload.received[index] = 1
        upload.received_count += 1
        upload.recovery_chunks -= 1
        if upload.recovery_chunks <= 0:
            upload.timeouts = 0
        return "keep"

    def next_grants(self, now: float) -> tuple[ChunkGrant, ...]:
        """Grants that have become possible; to be asked for after chunks were kept, and now and then."""
        for upload in list(self._active.values()):
            self._expire_if_overdue(upload, now)
            stalled = upload.timeouts >= MAX_TIMEOUTS or now - upload.active_since >= TIME_SLICE
            if stalled and self._waiting and not upload.complete:
                self._expire_grants(upload)
                upload.timeouts = 0
                self._waiting[upload.offer.client] = self._active.pop(upload.offer.client)
        return self._grant(now)

    def is_complete(self, client: str) -> bool:
        upload = self._find(client)
        return upload is not None and upload.complete

    def remove(self, client: str) -> None:
        """The upload is done with: complete, refused, or of no use any more."""
        upload = self._active.pop(client, None)
        if upload is not None:
            self._in_flight -= len(upload.granted)
        self._waiting.pop(client, None)

    def clear(self) -> tuple[str, ...]:
        """The round is over: nothing is wanted any more. Says whose uploads that ended."""
        clients = (*self._active, *self._waiting)
        self._active.clear()
        self._waiting.clear()
        self._in_flight = 0
        return clients

    # --- granting -----------------------------------------------------------------------------------------

    def _expire_grants(self, upload: _ScheduledUpload) -> None:
        self._in_flight -= len(upload.granted)
        upload.expire_grants()

    def _expire_if_overdue(self, upload: _ScheduledUpload, now: float) -> None:
        if not upload.granted:
            return
        oldest = min(upload.granted.values())
        patience = backoff(upload.timeouts, self._grant_timeout, MAX_GRANT_TIMEOUT)
        if now - oldest < patience:
            return
        self._expire_grants(upload)
        self._active.move_to_end(upload.offer.client)  # the others come first when room is given anew

    def _free_window(self, chunk_size: int) -> int:
        """How many more chunks of this size may be on their way."""
        if self._in_flight == 0:
            return max(1, min(self._window, GRANT_WINDOW_BYTES // chunk_size))
        on_their_way = sum(len(u.granted) * u.offer.chunk_size for u in self._active.values())
        return min(self._window - self._in_flight, (GRANT_WINDOW_BYTES - on_their_way) // chunk_size)

    def _activate(self, now: float) -> None:
        size = sum(upload.offer.size for upload in self._active.values())
        while self._waiting:
            client, upload = next(iter(self._waiting.items()))
            size += upload.offer.size
            room = MAX_PAIR_BYTES if len(self._active) == 1 else self._active_bytes
            if self._active and size > room:
                return
            upload.active_since = now
            upload.received = upload.received or bytearray(upload.offer.chunks)
            self._active[client] = self._waiting.pop(client)

    def _grant(self, now: float) -> tuple[ChunkGrant, ...]:
        self._activate(now)
        grants: list[ChunkGrant] = []
        for upload in self._active.values():
            # A quarter of a window at the least to a grant, where there is so much: a reply a chunk would be a flood.
            room = self._free_window(upload.offer.chunk_size)
            if room <= 0:
                break
            enough = (
                min(self._window, GRANT_WINDOW_BYTES // upload.offer.chunk_size, upload.offer.chunks) // 4
            )
            if not upload.has_more or (upload.granted and room < enough):
                continue
            if upload.timeouts and len(self._active) > 1:
                # What does not come takes the room of what would.
                room = min(room, max(1, enough))
            chunks: list[int] = []
            for index in upload.next_chunks():
                chunks.append(index)
                if len(chunks) == room:
                    break
            upload.granted.update(dict.fromkeys(chunks, now))
            self._in_flight += len(chunks)
            if chunks:
                grants.append(ChunkGrant(upload.offer, tuple(chunks)))
        return tuple(grants)


def same_chunking(one: UploadOffer, other: UploadOffer) -> bool:
    """Whether both are the same update, cut the same way: chunks of the one are chunks of the other."""
    return (one.round, one.digest, one.size, one.chunk_size) == (
        other.round,
        other.digest,
        other.size,
        other.chunk_size,
    )
