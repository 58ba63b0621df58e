"""Receives updates in chunks, which the pure `UploadScheduler` grants (protocol, section 6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from fl_aggregator.aggregation.validation import InvalidUpdate
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.storage.partial_update import PartialUpdate
from fl_aggregator.storage.spool import Spool
from fl_aggregator.storage.spool_format import UpdateDescription
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.mqtt.diagnosis import MESSAGES_MISSING
from fl_shared.protocol import messages as m
from fl_shared.system.flood_control import is_worth_logging
from fl_shared.system.text import names_text, natural_order
from fl_shared.tensors.digest import ContentDigests, ContentHash
from fl_shared.transfer.upload_scheduler import (
    GRANT_TIMEOUT,
    ChunkGrant,
    UploadOffer,
    UploadScheduler,
    same_chunking,
)

LOG: Final = logging.getLogger(__name__)

GrantSender = Callable[[ChunkGrant], None]
"""Tells an edge which chunks it may send."""


InvalidOfferReason = Literal["wrong-size", "not-granted"]

MIN_UPLOAD_CHUNK: Final = 2**10
"""Bytes; smaller chunks would be mostly envelope."""


class InvalidChunk(Exception):
    """A chunk cannot be used; ``reason`` is the reason under which it is counted."""

    def __init__(self, reason: InvalidOfferReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: InvalidOfferReason = reason


class _IncrementalDigest:
    """Computes the digest of an update (protocol, 3.4) as its chunks arrive, while they are in the cache."""

    def __init__(self, description: UpdateDescription) -> None:
        self._hash = ContentHash((s.name, s.encoding, s.manifest, s.size) for s in description.sections)
        self._chunk_size = description.chunk_size
        self._received = bytearray(description.chunks)
        self._next_chunk = 0

    def add_chunk(self, index: int, data: memoryview) -> None:
        """Records that chunk ``index`` has come; ``data`` is the whole update, as far as it has come."""
        self._received[index] = 1
        self._hash_contiguous(data)

    def add_chunks(self, received: bytes | bytearray, data: memoryview) -> None:
        """Records which chunks have come: one byte for each, and not 0 if it has."""
        self._received[:] = received
        self._hash_contiguous(data)

    def _hash_contiguous(self, data: memoryview) -> None:
        while self._next_chunk < len(self._received) and self._received[self._next_chunk]:
            start = self._next_chunk * self._chunk_size
            self._hash.update(data[start : start + self._chunk_size])
            self._next_chunk += 1

    def digests(self) -> ContentDigests:
        return self._hash.digests()


@dataclass(slots=True)
class _Upload:
    metadata: UpdateMetadata
    offer: UploadOffer
    description: UpdateDescription
    incremental_digest: _IncrementalDigest | None = None
    partial: PartialUpdate | None = None
    """Created when the first chunk comes: offers that only wait take no space."""
    again: bool = False
    """Whether all of it was asked for again, since its digest was wrong."""


@dataclass(frozen=True, slots=True)
class ReceivedUpdate:
    """A complete upload. ``again``: whether all of it was asked for again, since its digest was wrong."""

    metadata: UpdateMetadata
    offer: UploadOffer
    description: UpdateDescription
    partial: PartialUpdate
    digests: ContentDigests
    """Of the content, computed as it arrived."""
    again: bool

    def content(self) -> UpdateContent:
        """Returns a view of the content, valid until `Uploads.release` or `Uploads.restart`."""
        return replace(self.description.content(self.partial.data), known=self.digests)


@dataclass(frozen=True, slots=True)
class _ResumableUpload:
    """Chunks from an earlier incarnation, whose update has not been offered again yet."""

    partial: PartialUpdate
    description: UpdateDescription
    received: bytes
    incremental_digest: _IncrementalDigest


class Uploads:
    """The uploads of the open round, at most one for each client.

    Times are run time in seconds.
    """

    def __init__(self, spool: Spool, grant: GrantSender) -> None:
        self._spool = spool
        self._send_grant = grant
        self._scheduler = UploadScheduler()
        self._uploads: dict[str, _Upload] = {}
        self._resumable: dict[str, _ResumableUpload] = {}
        self._ended: dict[str, str] = {}
        """By client, the digest of its last upload that has ended: chunks that were granted twice may still come."""
        self._logged_overdue = 0
        self.stored_chunks = 0
        """Granted chunks that were stored, in all uploads so far."""

    def __iter__(self) -> Iterator[str]:
        """Iterates over the clients whose upload is not complete or not taken out yet."""
        return iter(self._uploads)

    def restore(self, round_number: int) -> None:
        """Reads the incomplete updates of an open round from the spool; an offer continues them."""
        for client, recovered in self._spool.partial_uploads(round_number):
            self._drop_resumable(client)  # of an earlier ticket
            digest = _IncrementalDigest(recovered.description)
            digest.add_chunks(recovered.received, recovered.partial.data)
            self._resumable[client] = _ResumableUpload(
                recovered.partial, recovered.description, bytes(recovered.received), digest
            )

    def begin(self, offer: m.Offer, metadata: UpdateMetadata, now: float) -> UpdateMetadata | None:
        """Takes up an offer; returns the update's metadata if all its chunks are here already.

        Raises ``InvalidUpdate`` if the offer contradicts itself.
        """
        client = offer.client
        try:
            upload_offer = UploadOffer(
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
        current = self._uploads.get(client)
        if current is not None and not same_chunking(current.offer, upload_offer):
            self.drop(client)
            current = None
        if current is None:
            self._start(metadata, upload_offer, UpdateDescription.of_offer(offer), now)
        else:
            current.metadata = metadata
            current.offer = upload_offer
            self._send_grants(self._scheduler.offer(upload_offer, now))
        return metadata if self._scheduler.is_complete(client) else None

    def _start(
        self,
        metadata: UpdateMetadata,
        upload_offer: UploadOffer,
        description: UpdateDescription,
        now: float,
        *,
        again: bool = False,
    ) -> None:
        client = upload_offer.client
        upload = self._uploads[client] = _Upload(metadata, upload_offer, description, again=again)
        received = b""
        resumable = self._resumable.pop(client, None)
        if resumable is not None and resumable.description == description:
            upload.partial, upload.incremental_digest, received = (
                resumable.partial,
                resumable.incremental_digest,
                resumable.received,
            )
        elif resumable is not None:
            _delete_partial(resumable.partial)
        self._send_grants(self._scheduler.offer(upload_offer, now, received))

    def receive_chunk(self, chunk: m.UpdateChunk, now: float) -> UpdateMetadata | None:
        """Stores a chunk; returns the update's metadata if that was the last one.

        Raises ``InvalidChunk``, or ``OSError`` if there is no space; nothing has changed then, and it may be
        repeated.
        """
        upload = self._uploads.get(chunk.client)
        if self._ended.get(chunk.client) == chunk.digest and (
            upload is None or upload.metadata.digest != chunk.digest
        ):
            return None
        if upload is None:
            raise InvalidChunk(
                "not-granted", f"chunk {chunk.index}: no update of this client is being received"
            )
        upload_offer = upload.offer
        identity = (chunk.client, chunk.round, chunk.digest, chunk.index, len(chunk.data))
        match self._scheduler.check_chunk(*identity):
            case "duplicate":
                return None
            case "keep":
                start = chunk.index * upload_offer.chunk_size
                partial, digesting = self._ensure_partial(upload)
                data = partial.data
                data[start : start + len(chunk.data)] = chunk.data
                partial.mark_received(chunk.index)
                self._scheduler.receive_chunk(*identity, now)
                self.stored_chunks += 1
                digesting.add_chunk(chunk.index, data)
            case "wrong-size" as verdict:
                expected = f"expected {upload_offer.chunk_length(chunk.index)} as offered"
                raise InvalidChunk(
                    verdict, f"chunk {chunk.index}: data: {len(chunk.data)} bytes, {expected}: {verdict}"
                )
            case verdict:
                limit_text = f"of {upload_offer.chunks} chunks of the update {upload_offer.digest[:12]}"
                raise InvalidChunk(
                    verdict, f"index: {chunk.index} {limit_text}, expected a granted one: {verdict}"
                )
        self._send_grants(self._scheduler.next_grants(now))
        return upload.metadata if self._scheduler.is_complete(chunk.client) else None

    def _ensure_partial(self, upload: _Upload) -> tuple[PartialUpdate, _IncrementalDigest]:
        if upload.partial is None or upload.incremental_digest is None:
            upload_offer = upload.offer
            upload.partial = self._spool.begin(upload_offer.round, upload_offer.client, upload.description)
            upload.incremental_digest = _IncrementalDigest(upload.description)
        return upload.partial, upload.incremental_digest

    def pop_complete(self, client: str) -> ReceivedUpdate:
        """Takes out a complete upload, which `release` or `restart` must follow.

        Until then it counts as active, so that its memory is not granted to other uploads.
        """
        upload = self._uploads.pop(client)
        self._ended[client] = upload.metadata.digest
        assert upload.partial is not None, "complete"
        assert upload.incremental_digest is not None, "made with it"
        digests = upload.incremental_digest.digests()
        return ReceivedUpdate(
            upload.metadata, upload.offer, upload.description, upload.partial, digests, again=upload.again
        )

    def release(self, update: ReceivedUpdate, now: float, *, drop: bool) -> None:
        """Closes an upload that was taken out; ``drop`` deletes its file as well."""
        if drop:
            update.partial.drop()
        update.partial.close()
        self._unschedule(update, now)

    def restart(self, update: ReceivedUpdate, now: float) -> None:
        """Deletes an upload whose content does not match its offer, and asks for all of it once more."""
        _delete_partial(update.partial)
        self._unschedule(update, now)
        if update.metadata.client not in self._uploads:
            self._start(update.metadata, update.offer, update.description, now, again=True)

    def _unschedule(self, update: ReceivedUpdate, now: float) -> None:
        scheduled = self._scheduler.get(update.metadata.client)
        if scheduled is not None and scheduled.digest == update.metadata.digest:
            self._scheduler.remove(update.metadata.client)
        self._send_grants(self._scheduler.next_grants(now))

    def drop(self, client: str) -> None:
        """Deletes a client's upload, with all that has come of it."""
        upload = self._uploads.pop(client, None)
        if upload is not None:
            self._ended[client] = upload.metadata.digest
        self._scheduler.remove(client)
        if upload is not None and upload.partial is not None:
            _delete_partial(upload.partial)

    def _drop_resumable(self, client: str) -> None:
        resumable = self._resumable.pop(client, None)
        if resumable is not None:
            _delete_partial(resumable.partial)

    def end_ticket(self, client: str, number: int) -> UpdateMetadata | None:
        """Deletes what has come of the update of a ticket that has ended; returns its metadata if it was under way."""
        self._drop_resumable(client)
        upload = self._uploads.get(client)
        if upload is None or upload.metadata.round != number:
            return None
        self.drop(client)
        return upload.metadata

    def due(self) -> float:
        """Returns the run time at which `renew_grants` does something, if no chunk comes; ∞ for never."""
        return self._scheduler.due()

    def renew_grants(self, now: float) -> None:
        """Grants chunks again that have not come in time."""
        before = self._logged_overdue
        self._send_grants(self._scheduler.next_grants(now))
        self._logged_overdue = overdue = self._scheduler.overdue_grants
        if self._uploads and overdue > before and is_worth_logging(before, overdue):
            LOG.warning(
                "chunks that edges may send have not arrived within %g s (%d times so far), and are asked for again: "
                "%s; uploading: %s",
                GRANT_TIMEOUT,
                overdue,
                MESSAGES_MISSING,
                names_text(natural_order(self._uploads)),
            )

    def end_round(self) -> tuple[UpdateMetadata, ...]:
        """Deletes all uploads; returns the metadata of those under way, whose edges need an answer."""
        dropped = tuple(upload.metadata for upload in self._uploads.values())
        for client in list(self._uploads):
            self.drop(client)
        for resumable in self._resumable.values():
            _delete_partial(resumable.partial)
        self._resumable.clear()
        self._scheduler.clear()  # also of those that were taken out
        return dropped

    def _send_grants(self, grants: tuple[ChunkGrant, ...]) -> None:
        for grant in grants:
            self._send_grant(grant)


def _delete_partial(partial: PartialUpdate) -> None:
    partial.drop()
    partial.close()
