"""Updates that come in chunks: what the pure `UploadScheduler` decides, done with real bytes (protocol, section 6)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from fl_aggregator.aggregation.validation import InvalidUpdate
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.storage.spool import PartialUpdate, Spool
from fl_aggregator.storage.spool_format import UpdateDescription
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import ContentHash
from fl_shared.transfer.upload_scheduler import ChunkGrant, UploadOffer, UploadScheduler, same_chunking

GrantSender = Callable[[ChunkGrant], None]
"""Tells an edge which chunks it may send."""


InvalidOfferReason = Literal["wrong-size", "not-granted", "wrong-checksum"]

MIN_UPLOAD_CHUNK: Final = 2**10
"""Bytes; smaller ones would be all envelope."""


class InvalidChunk(Exception):
    """A chunk that is of no use. ``reason`` is what it is counted under."""

    def __init__(self, reason: InvalidOfferReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: InvalidOfferReason = reason


class _IncrementalDigest:
    """The digest of an update (protocol, 3.4), made while its chunks come and are in the cache."""

    def __init__(self, description: UpdateDescription) -> None:
        self._hash = ContentHash((s.name, s.encoding, s.manifest, s.size) for s in description.sections)
        self._chunk_size = description.chunk_size
        self._here = bytearray(description.chunks)
        self._next = 0

    def take(self, index: int, data: memoryview) -> None:
        """Chunk ``index`` has come; ``data`` is the whole update, as far as it is there."""
        self._here[index] = 1
        self._go_on(data)

    def take_all(self, here: bytes | bytearray, data: memoryview) -> None:
        """Of ``here``, one byte a chunk, those that are not 0 have come."""
        self._here[:] = here
        self._go_on(data)

    def _go_on(self, data: memoryview) -> None:
        while self._next < len(self._here) and self._here[self._next]:
            start = self._next * self._chunk_size
            self._hash.update(data[start : start + self._chunk_size])
            self._next += 1

    def digest(self) -> str:
        return self._hash.hexdigest()


@dataclass(slots=True)
class _Upload:
    facts: UpdateMetadata
    offered: UploadOffer
    description: UpdateDescription
    digesting: _IncrementalDigest | None = None
    partial: PartialUpdate | None = None
    """Made when the first chunk comes: offers that only wait take no room."""
    found: bool = False
    """Some of it came in an earlier life of the aggregator."""


@dataclass(frozen=True, slots=True)
class ReceivedUpdate:
    """A complete upload. ``found``: some of it came in an earlier life of the aggregator."""

    facts: UpdateMetadata
    offered: UploadOffer
    description: UpdateDescription
    partial: PartialUpdate
    digest: str
    """That of its content, which was found out on the way."""
    found: bool

    def content(self) -> UpdateContent:
        """The view is good until it is put away."""
        return replace(self.description.content(self.partial.data), found=self.digest)


@dataclass(frozen=True, slots=True)
class _ResumableUpload:
    """What came in an earlier life of the aggregator, and nobody has offered yet in this one."""

    partial: PartialUpdate
    description: UpdateDescription
    here: bytes
    digesting: _IncrementalDigest


class Uploads:
    """At most one upload a client, all for the open round. Times are run time in seconds."""

    def __init__(self, spool: Spool, grant: GrantSender) -> None:
        self._spool = spool
        self._grant = grant
        self._intake = UploadScheduler()
        self._uploads: dict[str, _Upload] = {}
        self._found: dict[str, _ResumableUpload] = {}
        self.kept = 0
        """Chunks that were granted, have come, and are kept; of all uploads there were."""

    def __iter__(self) -> Iterator[str]:
        """Whose upload is under way."""
        return iter(self._uploads)

    def restore(self, round_number: int) -> None:
        """Reads what an earlier life of the aggregator took in of the open round; offers will ask for it."""
        for client, found in self._spool.found(round_number):
            digesting = _IncrementalDigest(found.description)
            digesting.take_all(found.here, found.partial.data)
            self._found[client] = _ResumableUpload(
                found.partial, found.description, bytes(found.here), digesting
            )

    def begin(self, offer: m.Offer, facts: UpdateMetadata, now: float) -> UpdateMetadata | None:
        """Takes up an offer; its facts if all of it is here already. Raises ``InvalidUpdate``."""
        client = offer.client
        try:
            offered = UploadOffer(
                client, offer.session, offer.round, offer.digest, offer.size, offer.chunk_size, offer.chunks
            )
        except ValueError as error:
            raise InvalidUpdate("malformed", str(error)) from None
        expected = sum(section.size for section in offer.sections)
        if offer.size != expected:
            raise InvalidUpdate(
                "wrong-size", f"size: {offer.size} bytes, expected {expected}, the sum of the sections"
            )
        if offer.chunks > 1 and offer.chunk_size < MIN_UPLOAD_CHUNK:
            raise InvalidUpdate(
                "malformed", f"chunk_size: {offer.chunk_size}, expected at least {MIN_UPLOAD_CHUNK}"
            )
        known = self._uploads.get(client)
        if known is not None and not same_chunking(known.offered, offered):
            self.drop(client)
            known = None
        if known is None:
            self._start(facts, offered, UpdateDescription.of_offer(offer), now)
        else:
            known.facts = facts
            known.offered = offered
            self._tell(self._intake.offer(offered, now))
        return facts if self._intake.is_complete(client) else None

    def _start(
        self, facts: UpdateMetadata, offered: UploadOffer, description: UpdateDescription, now: float
    ) -> None:
        client = offered.client
        upload = self._uploads[client] = _Upload(facts, offered, description)
        here = b""
        found = self._found.pop(client, None)
        if found is not None and found.description == description:
            upload.partial, upload.digesting, here = found.partial, found.digesting, found.here
            upload.found = True
        elif found is not None:
            _delete_partial(found.partial)
        self._tell(self._intake.offer(offered, now, here))

    def take(self, part: m.UpdateChunk, now: float) -> UpdateMetadata | None:
        """Keeps a chunk; the update's facts if that was the last one.

        Raises ``InvalidChunk``, and ``OSError`` if there is no room: nothing has changed then, and it may come again.
        """
        upload = self._uploads.get(part.client)
        if upload is None:
            raise InvalidChunk(
                "not-granted", f"chunk {part.index}: no update of this client is being received"
            )
        checksum = zlib.crc32(part.data)
        if checksum != part.crc32:
            detail = f"chunk {part.index}: crc32: {part.crc32}, expected {checksum} of {len(part.data)} bytes"
            raise InvalidChunk("wrong-checksum", detail)
        offered = upload.offered
        arrived = (part.client, part.round, part.digest, part.index, len(part.data))
        match self._intake.verdict(*arrived):
            case "duplicate":
                return None
            case "keep":
                start = part.index * offered.chunk_size
                partial, digesting = self._room(upload)
                data = partial.data
                data[start : start + len(part.data)] = part.data
                partial.mark(part.index, checksum)
                self._intake.chunk(*arrived)
                self.kept += 1
                digesting.take(part.index, data)
            case "wrong-size" as verdict:
                expected = f"expected {offered.length(part.index)} as offered"
                raise InvalidChunk(
                    verdict, f"chunk {part.index}: data: {len(part.data)} bytes, {expected}: {verdict}"
                )
            case verdict:
                of = f"of {offered.chunks} chunks of the update {offered.digest[:12]}"
                raise InvalidChunk(verdict, f"index: {part.index} {of}, expected a granted one: {verdict}")
        self._tell(self._intake.more(now))
        return upload.facts if self._intake.is_complete(part.client) else None

    def _room(self, upload: _Upload) -> tuple[PartialUpdate, _IncrementalDigest]:
        if upload.partial is None or upload.digesting is None:
            offered = upload.offered
            upload.partial = self._spool.begin(offered.round, offered.client, upload.description)
            upload.digesting = _IncrementalDigest(upload.description)
        return upload.partial, upload.digesting

    def take_out(self, client: str) -> ReceivedUpdate:
        """A complete upload; its room is not given to others before it is put away."""
        upload = self._uploads.pop(client)
        assert upload.partial is not None, "complete"
        assert upload.digesting is not None, "made with it"
        digest = upload.digesting.digest()
        return ReceivedUpdate(
            upload.facts, upload.offered, upload.description, upload.partial, digest, found=upload.found
        )

    def put_away(self, taken: ReceivedUpdate, now: float, *, drop: bool) -> None:
        """What was taken out is not needed in memory any more; ``drop``: nor on disk."""
        if drop:
            taken.partial.drop()
        taken.partial.close()
        self._end(taken, now)

    def take_anew(self, taken: ReceivedUpdate, now: float) -> None:
        """What was taken out is not what was offered, but not all of it came now: asks for all of it once more."""
        _delete_partial(taken.partial)
        self._end(taken, now)
        if taken.facts.client not in self._uploads:
            self._start(taken.facts, taken.offered, taken.description, now)

    def _end(self, taken: ReceivedUpdate, now: float) -> None:
        known = self._intake.get(taken.facts.client)
        if known is not None and known.digest == taken.facts.digest:
            self._intake.forget(taken.facts.client)
        self._tell(self._intake.more(now))

    def drop(self, client: str) -> None:
        """It is of no use: nothing stays of it."""
        upload = self._uploads.pop(client, None)
        self._intake.forget(client)
        if upload is not None and upload.partial is not None:
            _delete_partial(upload.partial)

    def pass_time(self, now: float) -> None:
        """Grants again what has not come."""
        self._tell(self._intake.more(now))

    def end_round(self) -> tuple[UpdateMetadata, ...]:
        """Drops whatever is under way; whose that was is to be told."""
        facts = tuple(upload.facts for upload in self._uploads.values())
        for client in list(self._uploads):
            self.drop(client)
        for found in self._found.values():
            _delete_partial(found.partial)
        self._found.clear()
        self._intake.clear()  # and what was taken out
        return facts

    def _tell(self, grants: tuple[ChunkGrant, ...]) -> None:
        for grant in grants:
            self._grant(grant)


def _delete_partial(partial: PartialUpdate) -> None:
    partial.drop()
    partial.close()
