"""PURE: the messages that send an update, whole or in granted chunks (protocol, section 6).

Only a chunk that spans two sections copies data: the other messages hold views of it, which `codec.encode_pieces`
passes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypedDict, cast

from fl_shared.protocol import messages as m
from fl_shared.protocol.codec import encode, encode_pieces
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import MAX_CHUNKS, chunk_count, slice_sections

MIN_CHUNK: Final = 1024
"""The smallest chunk in bytes. A broker that accepts only smaller ones is misconfigured."""
PACKET_OVERHEAD: Final = 512
"""Bytes of an MQTT packet besides its payload (topic and header), with some reserve."""
MAX_HEAD: Final = 2**25
"""Bytes of an update's packet besides its data, at most: the names of all arrays take less."""


@dataclass(frozen=True, slots=True)
class FinishedUpdate:
    """An edge's update without the envelope; ``base`` is None for initial weights (round 0).

    ``sum_of``: what it is the sum of; None if it is the update of one edge. ``plan``: the digest of the plan of a
    masked round (protocol, 10.3); None in others.
    """

    base: str | None
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: m.UpdateMetrics
    sections: tuple[ModelSection, ...] = field(repr=False)
    sum_of: m.SumOf | None = None
    plan: str | None = None

    @property
    def size(self) -> int:
        """Bytes of data of all sections together."""
        return sum(len(section.data) for section in self.sections)


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of an update: client and session, the run and its incarnation, and the round."""

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
    sum_of: m.SumOf | None
    plan: str | None


def _common_fields(sender: Sender, seq: int, update: FinishedUpdate) -> _CommonFields:
    """The fields that an update and its offer have in common."""
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
        "sum_of": update.sum_of,
        "plan": update.plan,
    }


def update_message(sender: Sender, seq: int, update: FinishedUpdate) -> m.Update:
    """The message that carries the whole update."""
    return m.Update(
        **_common_fields(sender, seq, update),
        # Not validated: a view would not pass as bytes, and the sections are our own.
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


def fits_whole(sender: Sender, seq: int, update: FinishedUpdate, maximum_packet_size: int | None) -> bool:
    """Whether the `update_message` fits into the largest packet that the broker accepts, in bytes; None for any."""
    if maximum_packet_size is None or update.size + MAX_HEAD <= maximum_packet_size:
        return True  # without encoding it, which takes as long as all else that is done to send it
    size = sum(map(len, encode_pieces(update_message(sender, seq, update))))
    return size + PACKET_OVERHEAD <= maximum_packet_size


def offer_message(sender: Sender, seq: int, update: FinishedUpdate, chunk_size: int) -> m.Offer:
    """The offer: the update without its data, and how the data is cut into chunks."""
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
    """The message with chunk ``index`` of an offered update. Raises ``IndexError`` if there is none."""
    chunks = chunk_count(update.size, chunk_size)
    if not 0 <= index < chunks:
        raise IndexError(f"chunk {index} of {chunks}")
    data = slice_sections(update.sections, index * chunk_size, (index + 1) * chunk_size)
    # Not validated: a view would not pass as bytes, and the envelope was validated in the offer.
    return m.UpdateChunk.model_construct(
        run=sender.run,
        incarnation=sender.incarnation,
        seq=seq,
        client=sender.client,
        session=sender.session,
        round=sender.round,
        digest=update.digest,
        index=index,
        data=cast(bytes, data),
    )


def chunk_size_for(
    sender: Sender, update: FinishedUpdate, preferred: int, maximum_packet_size: int | None
) -> int:
    """The size in bytes of the chunks of an update: ``preferred``, or less if the broker requires it.

    ``maximum_packet_size``: bytes of the largest packet that the broker accepts, None for any. A chunk has at least
    `MIN_CHUNK` bytes. Raises ``ValueError`` if the broker accepts no packet with such a chunk, or not the offer.
    """
    limit, overhead = m.MAX_CHUNK, PACKET_OVERHEAD + _chunk_overhead(sender, update)
    if maximum_packet_size is not None:
        limit = min(limit, maximum_packet_size - overhead)
        offer_size = len(encode(offer_message(sender, m.MAX_COUNT, update, m.MAX_CHUNK)))
        if offer_size + PACKET_OVERHEAD > maximum_packet_size:
            raise ValueError(
                f"its offer has {offer_size} bytes, "
                f"but the broker accepts packets of at most {maximum_packet_size}"
            )
    min_size = max(MIN_CHUNK, -(-update.size // MAX_CHUNKS))
    if limit < min_size:
        raise ValueError(
            f"the broker accepts packets of at most {maximum_packet_size} bytes, "
            f"but chunks of {min_size} bytes need {min_size + overhead}"
        )
    return max(min_size, min(preferred, limit))


def granted_chunks(chunks: Iterable[int], count: int) -> tuple[int, ...]:
    """The chunks of a grant, in its order, without repetitions and without those from ``count`` on."""
    return tuple(index for index in dict.fromkeys(chunks) if index < count)


def _chunk_overhead(sender: Sender, update: FinishedUpdate) -> int:
    """The largest number of bytes of a ``chunk_message`` besides its data."""
    empty = m.UpdateChunk(
        run=sender.run,
        incarnation=sender.incarnation,
        seq=m.MAX_COUNT,
        client=sender.client,
        session=sender.session,
        round=sender.round,
        digest=update.digest,
        index=MAX_CHUNKS,
        data=b"",
    )
    return len(encode(empty)) + 3
