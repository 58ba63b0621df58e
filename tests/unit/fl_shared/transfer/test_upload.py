"""The sending half of an upload. The numbers in the names are clauses of docs/protocol.md."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer import upload
from tests.support.builders import finished_update
from tests.support.samples import DATA, MANIFEST, MESSAGES

SENDER = upload.Sender("7", "c3d4", "R", 1, 3)


def update(
    data: bytes = DATA, *, base: str | None = "b" * 64, control: bool = False
) -> upload.FinishedUpdate:
    manifest = MANIFEST if data is DATA else Manifest(arrays=(ArraySpec(name="w", shape=(len(data) // 4,)),))
    sections: tuple[ModelSection, ...] = (ModelSection("delta", manifest, memoryview(data)),)
    if control:
        sections = (ModelSection("control", manifest, memoryview(data[::-1])), *sections)
    return finished_update(*sections, base=base, examples=57, seconds=0.25)


def generic(message: m.Message) -> bytes:
    """The message as msgpack itself packs it."""
    return bytes(msgpack.packb(message.model_dump(warnings=False), use_bin_type=True))


@pytest.mark.parametrize("size", [0, 16, 252, 256, 65_532, 65_536, 70_000])
@pytest.mark.parametrize("control", [False, True])
def test_what_is_packed_by_hand_has_the_bytes_of_msgpack(size: int, control: bool) -> None:
    data = np.random.default_rng(0).bytes(size)
    one = update(data, control=control)
    whole = upload.update_message(SENDER, 2**40, one)
    assert codec.encode(whole) == generic(whole)
    part = upload.chunk_message(SENDER, 7, one, 2**20, 0)
    assert codec.encode(part) == generic(part)
    chunk = m.ModelChunk(run="R", incarnation=1, seq=0, digest=one.digest, index=0, data=data)
    assert codec.encode(chunk) == generic(chunk)


@pytest.mark.parametrize("count", [1, 2, 15, 16])
def test_many_sections_too(count: int) -> None:
    message = MESSAGES["update"][1]
    assert isinstance(message, m.Update)
    [section] = message.sections
    many = message.model_copy(
        update={"sections": tuple(section.model_copy(update={"name": f"s{i}"}) for i in range(count))}
    )
    assert codec.encode(many) == generic(many)
    assert codec.decode(t.UpdatesTopic("7"), codec.encode(many)) == many


@pytest.mark.parametrize("size", [0, 16, 252, 256, 65_532, 65_536, 70_000])
def test_an_update_is_sent_whole_exactly_if_its_message_fits_into_a_packet(size: int) -> None:
    one = update(bytes(size))
    packet = len(codec.encode(upload.update_message(SENDER, 5, one))) + upload.PACKET_OVERHEAD
    assert upload.fits_whole(SENDER, 5, one, packet)
    assert not upload.fits_whole(SENDER, 5, one, packet - 1)
    assert upload.fits_whole(SENDER, 5, one, None)
    assert upload.fits_whole(SENDER, 5, one, size + upload.MAX_HEAD)


def test_5_3_arrays_travel_only_with_first_weights() -> None:
    for base, travels in ((None, True), ("b" * 64, False)):
        one = update(base=base)
        assert (upload.update_message(SENDER, 0, one).sections[0].arrays is not None) is travels
        assert (upload.offer_message(SENDER, 0, one, 1024).sections[0].arrays is not None) is travels


def test_6_1_an_offer_says_all_but_the_data() -> None:
    one = update(bytes(5000), control=True)
    offered = upload.offer_message(SENDER, 0, one, 3000)
    assert (offered.size, offered.chunk_size, offered.chunks) == (10_000, 3000, 4)
    assert [(s.name, s.size) for s in offered.sections] == [("control", 5000), ("delta", 5000)]
    whole = upload.update_message(SENDER, 0, one)
    for name in (
        "client",
        "session",
        "run",
        "incarnation",
        "round",
        "base",
        "digest",
        "examples",
        "steps",
        "metrics",
    ):
        assert getattr(offered, name) == getattr(whole, name)


def test_6_3_parts_are_views_of_the_update() -> None:
    data = bytearray(5000)
    one = update(data)  # type: ignore[arg-type]
    part = upload.chunk_message(SENDER, 0, one, 2048, 2)
    assert len(part.data) == 5000 - 2 * 2048
    data[4096] = 7
    assert part.data[0] == 7, "the same memory"
    with pytest.raises(IndexError, match="chunk 3 of 3"):
        upload.chunk_message(SENDER, 0, one, 2048, 3)


def test_6_3_a_chunk_across_sections_is_put_together() -> None:
    one = update(bytes(range(200)), control=True)
    whole = b"".join(bytes(s.data) for s in one.sections)
    parts = [upload.chunk_message(SENDER, i, one, 148, i) for i in range(3)]
    assert b"".join(bytes(part.data) for part in parts) == whole


def test_6_3_a_grant_is_taken_at_its_word_once() -> None:
    assert upload.granted_chunks((5, 3, 5, 9, 4, 3), 9) == (5, 3, 4)


@pytest.mark.parametrize(
    ("wanted", "largest", "expected"),
    [
        (2**20, None, 2**20),
        (2**20, 2**21, 2**20),
        (5000, 2**20, 5000),
        (1025, None, 1025),
        (2**28, None, 2**24),
    ],
)
def test_6_1_the_chunk_size_is_the_edges_choice(wanted: int, largest: int | None, expected: int) -> None:
    assert upload.chunk_size_for(SENDER, update(bytes(10_000)), wanted, largest) == expected


def test_6_1_what_the_broker_announces_limits_it() -> None:
    one = update(bytes(10_000_000))
    size = upload.chunk_size_for(SENDER, one, 2**20, 131_072)
    assert 129_500 < size < 131_072
    with pytest.raises(ValueError, match="accepts packets of at most 1500 bytes"):
        upload.chunk_size_for(SENDER, one, 2**20, 1500)


def test_6_1_an_offer_that_does_not_fit_is_told_of() -> None:
    arrays = tuple(ArraySpec(name=f"layer-{i:05}", shape=(1,)) for i in range(5000))
    section = ModelSection("delta", Manifest(arrays=arrays), bytes(20_000))
    one = finished_update(section, base=None, examples=1, steps=0, seconds=0.0, metrics=m.UpdateMetrics())
    with pytest.raises(
        ValueError, match=r"its offer has \d+ bytes, but the broker accepts packets of at most 131072"
    ):
        upload.chunk_size_for(SENDER, one, 2**20, 131_072)


def test_there_are_never_more_chunks_than_may_be() -> None:
    # Only its length is looked at: a memory of two thousand million zeros is not needed.
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**31

    section = ModelSection("delta", MANIFEST, Huge())
    one = finished_update(
        section, digest="d" * 64, examples=1, steps=0, seconds=0.0, metrics=m.UpdateMetrics()
    )
    size = upload.chunk_size_for(SENDER, one, 1024, None)
    assert upload.offer_message(SENDER, 0, one, size).chunks <= 1_000_000
