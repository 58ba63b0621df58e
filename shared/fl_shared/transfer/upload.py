"""PURE: a finished update on its way to the aggregator, whole or in chunks as they are granted (protocol, section 6).

Nothing here copies the update's data, but for a chunk that lies in two sections: messages are made with views into
it, which `codec.encode` puts into the payload.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypedDict, cast

from fl_shared.protocol import messages as m
from fl_shared.protocol.codec import encode
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import MAX_CHUNKS, chunk_count

MIN_CHUNK: Final = 1024
"""Bytes. A broker that lets through no more than this gets nothing: it is a mistake of its settings."""
PACKET_OVERHEAD: Final = 512
"""Bytes of an MQTT packet that are not its payload: topic and header, generously."""
_MAX_COUNT: Final = 2**53


@dataclass(frozen=True, slots=True)
class FinishedUpdate:
    """What an edge has learnt, without the envelope; ``base`` is null for first weights (round 0)."""

    base: str | None
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: m.UpdateMetrics
    sections: tuple[ModelSection, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of data, all sections together."""
        return sum(len(section.data) for section in self.sections)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends an update of which round, in which session, to which start of which run's aggregator."""

    client: str
    session: str
    run: str
    incarnation: int
    round: int


class _CommonFields(TypedDict):
    run: str
    incarnation: int
    seq: int
    client: str
    session: str
    round: int
    base: str | None
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: m.UpdateMetrics


def _common_fields(sender: Sender, seq: int, update: FinishedUpdate) -> _CommonFields:
    """What an update and its offer have in common."""
    return {
        "run": sender.run,
        "incarnation": sender.incarnation,
        "seq": seq,
        "client": sender.client,
        "session": sender.session,
        "round": sender.round,
        "base": update.base,
        "digest": update.digest,
        "examples": update.examples,
        "steps": update.steps,
        "seconds": update.seconds,
        "metrics": update.metrics,
    }


def update_message(sender: Sender, seq: int, update: FinishedUpdate) -> m.Update:
    """The update in one message."""
    return m.Update(
        **_common_fields(sender, seq, update),
        # Not validated, since a view passes for no bytes, and the sections are our own.
        sections=tuple(
            m.Section.model_construct(
                name=s.name,
                encoding=s.encoding,
                manifest=s.manifest.digest,
                arrays=s.manifest.arrays if update.base is None else None,
                data=cast(bytes, s.data),
            )
            for s in update.sections
        ),
    )


def update_message_size(sender: Sender, seq: int, update: FinishedUpdate) -> int:
    """How long `update_message` is when it is encoded, without encoding the data (msgpack's bin 8, 16 and 32)."""
    bare = update_message(sender, seq, update)
    sections = tuple(section.model_copy(update={"data": b""}) for section in bare.sections)
    lengths = [len(section.data) for section in update.sections]
    headers = sum(0 if n < 2**8 else 1 if n < 2**16 else 3 for n in lengths)
    return len(encode(bare.model_copy(update={"sections": sections}))) + headers + sum(lengths)


def offer_message(sender: Sender, seq: int, update: FinishedUpdate, chunk_size: int) -> m.Offer:
    """All of the update but its data, and how that is cut."""
    return m.Offer(
        **_common_fields(sender, seq, update),
        sections=tuple(
            m.OfferedSection(
                name=s.name,
                encoding=s.encoding,
                manifest=s.manifest.digest,
                arrays=s.manifest.arrays if update.base is None else None,
                size=len(s.data),
            )
            for s in update.sections
        ),
        size=update.size,
        chunk_size=chunk_size,
        chunks=chunk_count(update.size, chunk_size),
    )


def chunk_message(
    sender: Sender, seq: int, update: FinishedUpdate, chunk_size: int, index: int
) -> m.UpdateChunk:
    """Chunk ``index`` of what was offered. Raises ``IndexError`` for one that there is not."""
    chunks = chunk_count(update.size, chunk_size)
    if not 0 <= index < chunks:
        raise IndexError(f"chunk {index} of {chunks}")
    data = slice_sections(update.sections, index * chunk_size, (index + 1) * chunk_size)
    # Not validated, for a view passes for no bytes; the envelope was, in the offer.
    return m.UpdateChunk.model_construct(
        run=sender.run,
        incarnation=sender.incarnation,
        seq=seq,
        client=sender.client,
        session=sender.session,
        round=sender.round,
        digest=update.digest,
        index=index,
        crc32=zlib.crc32(data),
        data=cast(bytes, data),
    )


def slice_sections(sections: Sequence[ModelSection], start: int, end: int) -> bytes | memoryview:
    """Bytes ``start`` to ``end`` of all sections' data, one after the other; a view where they lie in one section."""
    pieces: list[memoryview] = []
    for section in sections:
        length = len(section.data)
        if start < length and end > 0:
            pieces.append(memoryview(section.data)[max(0, start) : end])
        start, end = start - length, end - length
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def chunk_size_for(sender: Sender, update: FinishedUpdate, wanted: int, largest: int | None) -> int:
    """``wanted`` (bytes), or less where the broker takes packets of at most ``largest`` bytes.

    The sections can be decoded in pieces of that size. Never below `MIN_CHUNK`. Raises ``ValueError`` if a packet
    cannot be so small, or an offer cannot be sent.
    """
    limit, room = m.MAX_CHUNK, PACKET_OVERHEAD + _chunk_overhead(sender, update)
    if largest is not None:
        limit = min(limit, largest - room)
        offered = len(encode(offer_message(sender, _MAX_COUNT, update, m.MAX_CHUNK)))
        if offered + PACKET_OVERHEAD > largest:
            raise ValueError(
                f"its offer has {offered} bytes, but the broker accepts packets of at most {largest}"
            )
    unit = math.lcm(*(registry.get(section.encoding).granularity for section in update.sections))
    least = unit * -(-max(MIN_CHUNK, -(-update.size // MAX_CHUNKS)) // unit)
    if limit < least:
        raise ValueError(
            f"the broker accepts packets of at most {largest} bytes, but chunks of {least} bytes need {least + room}"
        )
    return max(least, min(wanted, limit)) // unit * unit


def granted_chunks(chunks: Iterable[int], count: int) -> tuple[int, ...]:
    """The chunks that a grant asks for: each once, in its order, and only those that there are (``count``)."""
    return tuple(index for index in dict.fromkeys(chunks) if index < count)


def _chunk_overhead(sender: Sender, update: FinishedUpdate) -> int:
    """Bytes of a ``chunk_message`` that are not its data, at most."""
    bare = m.UpdateChunk(
        run=sender.run,
        incarnation=sender.incarnation,
        seq=_MAX_COUNT,
        client=sender.client,
        session=sender.session,
        round=sender.round,
        digest=update.digest,
        index=MAX_CHUNKS,
        crc32=2**32 - 1,
        data=b"",
    )
    return len(encode(bare)) + 3
