"""Updates that come in chunks: what the pure `Intake` decides, done with real bytes (protocol, section 6)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self

from fl_aggregator.check import Content, SectionContent
from fl_aggregator.events import UpdateFacts
from fl_aggregator.spool import Partial, Spool
from fl_shared import messages as m
from fl_shared.intake import Granted, Intake, Offered, same_cut
from fl_shared.tensors import content_hash

Grant = Callable[[Granted], None]
"""Tells an edge which chunks it may send."""


Reason = Literal["malformed", "wrong-size", "not-granted", "wrong-checksum"]

SMALLEST_CHUNK: Final = 2**10
"""Bytes; smaller ones would be all envelope."""


class Misfit(Exception):
    """An offer or a chunk that is of no use. ``reason`` is what it is counted under."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


class _Digesting:
    """The digest of an update of one section (protocol, 3.4), made while its chunks come and are in the cache."""

    def __init__(self, section: m.OfferedSection, chunks: int) -> None:
        self._sha = content_hash(section.name, section.encoding, section.manifest, section.size)
        self._here = bytearray(chunks)
        self._next = 0

    @classmethod
    def of(cls, offer: m.Offer) -> Self | None:
        return cls(offer.sections[0], offer.chunks) if len(offer.sections) == 1 else None

    def take(self, index: int, offered: Offered, data: memoryview) -> None:
        """Chunk ``index`` has come; ``data`` is all there is so far."""
        self._here[index] = 1
        while self._next < offered.chunks and self._here[self._next]:
            start = self._next * offered.chunk_size
            self._sha.update(data[start : start + offered.length(self._next)])
            self._next += 1

    def digest(self) -> str:
        return self._sha.hexdigest()


@dataclass(slots=True)
class _Upload:
    facts: UpdateFacts
    offered: Offered
    sections: tuple[m.OfferedSection, ...]
    digesting: _Digesting | None
    partial: Partial | None = None
    """Made when the first chunk comes: offers that only wait take no room."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A complete upload."""

    facts: UpdateFacts
    sections: tuple[m.OfferedSection, ...]
    partial: Partial
    digest: str | None
    """That of its content, where it was found out on the way."""

    def content(self) -> Content:
        """The view is good until it is put away."""
        contents = []
        start = 0
        for section in self.sections:
            data = self.partial.data[start : start + section.size]
            contents.append(
                SectionContent(section.name, section.encoding, section.manifest, section.arrays, data)
            )
            start += section.size
        return Content(self.facts.digest, tuple(contents), self.digest)


class Uploads:
    """At most one upload a client, all for the open round. Times are run time in seconds."""

    def __init__(self, spool: Spool, grant: Grant) -> None:
        self._spool = spool
        self._grant = grant
        self._intake = Intake()
        self._uploads: dict[str, _Upload] = {}

    def begin(self, offer: m.Offer, facts: UpdateFacts, now: float) -> None:
        """An offer that is wanted. Raises ``Misfit`` if it fits nowhere."""
        client = offer.client
        try:
            offered = Offered(
                client, offer.session, offer.round, offer.digest, offer.size, offer.chunk_size, offer.chunks
            )
        except ValueError as error:
            raise Misfit("malformed", str(error)) from None
        if sum(section.size for section in offer.sections) != offer.size:
            raise Misfit("malformed", f"size: {offer.size}, but the sections have another size together")
        if offer.chunks > 1 and offer.chunk_size < SMALLEST_CHUNK:
            raise Misfit("malformed", f"chunk_size: {offer.chunk_size}, expected at least {SMALLEST_CHUNK}")
        known = self._uploads.get(client)
        if known is not None and not same_cut(known.offered, offered):
            self.drop(client)
            known = None
        if known is None:
            self._uploads[client] = _Upload(facts, offered, offer.sections, _Digesting.of(offer))
        else:
            known.facts = facts
            known.offered = offered
        self._tell(self._intake.offer(offered, now))

    def take(self, part: m.UpdateChunk, now: float) -> UpdateFacts | None:
        """Keeps a chunk; the update's facts if that was the last one.

        Raises ``Misfit``, and ``OSError`` if there is no room: the offer is forgotten, and has to be made again.
        """
        upload = self._uploads.get(part.client)
        if upload is None:
            raise Misfit("not-granted", f"chunk {part.index} of an update that is not being sent")
        if zlib.crc32(part.data) != part.crc32:
            raise Misfit(
                "wrong-checksum", f"chunk {part.index}: crc32 is not that of its {len(part.data)} bytes"
            )
        offered = upload.offered
        match self._intake.chunk(part.client, part.round, part.digest, part.index, len(part.data)):
            case "duplicate":
                return None
            case "keep":
                start = part.index * offered.chunk_size
                data = self._room(upload).data
                data[start : start + len(part.data)] = part.data
                if upload.digesting is not None:
                    upload.digesting.take(part.index, offered, data)
            case verdict:
                raise Misfit(verdict, f"chunk {part.index}: {len(part.data)} bytes: {verdict}")
        self._tell(self._intake.more(now))
        return upload.facts if self._intake.is_complete(part.client) else None

    def _room(self, upload: _Upload) -> Partial:
        if upload.partial is None:
            offered = upload.offered
            try:
                upload.partial = self._spool.begin(offered.round, offered.client, offered.size)
            except OSError:
                self.drop(offered.client)
                raise
        return upload.partial

    def take_out(self, client: str) -> Taken:
        """A complete upload; its room is not given to others before it is put away."""
        upload = self._uploads.pop(client)
        assert upload.partial is not None, "complete"
        digest = None if upload.digesting is None else upload.digesting.digest()
        return Taken(upload.facts, upload.sections, upload.partial, digest)

    def put_away(self, taken: Taken, now: float, *, drop: bool) -> None:
        """What was taken out is not needed in memory any more; ``drop``: nor on disk."""
        if drop:
            taken.partial.drop()
        taken.partial.close()
        known = self._intake.get(taken.facts.client)
        if known is not None and known.digest == taken.facts.digest:
            self._intake.forget(taken.facts.client)
        self._tell(self._intake.more(now))

    def drop(self, client: str) -> None:
        """It is of no use: nothing stays of it."""
        upload = self._uploads.pop(client, None)
        self._intake.forget(client)
        if upload is not None and upload.partial is not None:
            upload.partial.drop()
            upload.partial.close()

    def pass_time(self, now: float) -> None:
        """Grants again what has not come."""
        self._tell(self._intake.more(now))

    def end_round(self) -> tuple[UpdateFacts, ...]:
        """Drops whatever is under way; whose that was is to be told."""
        facts = tuple(upload.facts for upload in self._uploads.values())
        for client in list(self._uploads):
            self.drop(client)
        self._intake.clear()  # and what was taken out
        return facts

    def _tell(self, grants: tuple[Granted, ...]) -> None:
        for grant in grants:
            self._grant(grant)
