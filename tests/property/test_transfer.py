"""Whatever is lost, doubled, turned round or damaged on the way: the right bytes come of it, or a typed failure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import digest_of
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer import upload
from fl_shared.transfer.download import ModelDownload
from fl_shared.transfer.publication import ModelPublication, model_publication, slice_sections
from tests.support.builders import finished_update

SENDER = upload.Sender("7", "s1", "R", 1, 3)
NAMES = ("control", "momentum", "weights")


def sections_of(sizes: Sequence[int], seed: int) -> tuple[ModelSection, ...]:
    chance = np.random.default_rng(seed)
    return tuple(
        ModelSection(
            name,
            Manifest(arrays=(ArraySpec(name="w", shape=(values,)),)),
            memoryview(chance.standard_normal(values).astype("<f4").tobytes()),
        )
        for name, values in zip(NAMES[-len(sizes) :], sizes, strict=True)
    )


SIZES = st.lists(st.integers(0, 300), min_size=1, max_size=3)


class LossyLink:
    """What happens to messages on their way: each chance is one in so many that it happens."""

    def __init__(self, seed: int, lose: float, double: float, damage: float, order: float) -> None:
        self.chance = random.Random(seed)
        self.lose, self.double, self.damage, self.order = lose, double, damage, order

    def next(self, arriving: list[tuple[t.Topic, bytes]]) -> list[tuple[t.Topic, bytes]]:
        """Takes one message away, and gives what comes of it."""
        last = len(arriving) - 1
        place = self.chance.randint(0, last) if self.chance.random() < self.order else 0
        topic, payload = arriving.pop(place)
        if self.chance.random() < self.lose:
            return []
        if self.chance.random() < self.damage:
            broken = bytearray(payload)
            broken[self.chance.randrange(len(broken))] ^= 1 << self.chance.randrange(8)
            payload = bytes(broken)
        return [(topic, payload)] * (2 if self.chance.random() < self.double else 1)


LINKS = st.builds(
    LossyLink,
    seed=st.integers(0, 10_000),
    lose=st.sampled_from([0.0, 0.2, 0.7]),
    double=st.sampled_from([0.0, 0.3]),
    damage=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
    order=st.sampled_from([0.0, 0.5, 1.0]),
)


# --- down -------------------------------------------------------------------------------------------------


class FakeBroker:
    """Retained messages and one subscriber, who is told of nothing that does not fit into his queue."""

    def __init__(self, model: ModelPublication, queue: int) -> None:
        envelope = {"run": "R", "incarnation": 1, "seq": 0}
        self.queue = queue
        self.kept: dict[t.Topic, bytes] = {}
        for topic in model.topics():
            message = (
                model.chunk(topic.index, **envelope)  # type: ignore[arg-type]
                if isinstance(topic, t.ChunkTopic)
                else model.manifest(**envelope)  # type: ignore[arg-type]
            )
            self.kept[topic] = codec.encode(message)
        self.subscribed: set[t.Topic] = set()
        self.arriving: list[tuple[t.Topic, bytes]] = []

    def update_subscriptions(self, download: ModelDownload, now: float) -> None:
        asking = download.subscription_changes(now)
        assert set(asking.unsubscribe) <= self.subscribed
        self.subscribed -= set(asking.unsubscribe)
        assert not self.subscribed & set(asking.subscribe), "asked for twice"
        self.subscribed |= set(asking.subscribe)
        assert set(download.subscribed_topics()) == self.subscribed
        assert len(self.subscribed) <= 16 + 8
        for topic in asking.subscribe:
            if len(self.arriving) < self.queue:
                self.arriving.append((topic, self.kept[topic]))

    def disconnect(self, download: ModelDownload) -> None:
        self.subscribed.clear()
        self.arriving.clear()
        download.reset_requests()


@settings(max_examples=40, deadline=None)
@given(
    sizes=SIZES,
    chunk_size=st.integers(1, 500),
    link=LINKS,
    queue=st.sampled_from([1, 3, 100]),
    hang_ups=st.sampled_from([0.0, 0.02]),
)
def test_a_model_comes_down_whole_or_fails(
    sizes: list[int], chunk_size: int, link: LossyLink, queue: int, hang_ups: float
) -> None:
    sections = sections_of(sizes, 1)
    model = model_publication(sections, chunk_size)
    download, broker, now = ModelDownload(model.digest), FakeBroker(model, queue), 0.0
    for _ in range(100_000):
        broker.update_subscriptions(download, now)
        if download.state != "open":
            break
        if link.chance.random() < hang_ups:
            broker.disconnect(download)
            now += 1.0
        elif not broker.arriving:
            due = download.due()
            assert due is not None, "nothing comes, and nothing is waited for"
            assert due - now < 30.001
            now = max(now, due)
        else:
            now += 0.01
            for topic, payload in link.next(broker.arriving):
                try:
                    message = codec.decode(topic, payload)
                except codec.DecodeError as error:
                    download.count_invalid(str(error))
                else:
                    assert isinstance(message, m.ModelManifest | m.ModelChunk)
                    download.receive(message, now)
    event(download.state)
    if download.state == "failed":
        assert link.damage
        assert "were not valid" in download.failure or "digest is not the model's" in download.failure
        return
    assert download.state == "complete"
    assert [(s.name, s.manifest, bytes(s.data)) for s in download.model] == [
        (s.name, s.manifest, bytes(s.data)) for s in sections
    ]
    assert broker.subscribed == set()


# --- up ---------------------------------------------------------------------------------------------------


class Receiver:
    """A dumb one: writes what fits into its place, and asks for what is missing, a few chunks at a time."""

    def __init__(self, offer: m.Offer, window: int) -> None:
        self.offer, self.window = offer, window
        self.data = bytearray(offer.size)
        self.missing = list(range(offer.chunks))

    def grant(self) -> m.Grant:
        offer = self.offer
        return m.Grant(
            run=offer.run, incarnation=offer.incarnation, seq=0, client=offer.client, session=offer.session,
            round=offer.round, digest=offer.digest, chunks=tuple(self.missing[: self.window]),
        )  # fmt: skip

    def take(self, part: m.UpdateChunk) -> None:
        offer = self.offer
        start = part.index * offer.chunk_size
        length = min(offer.chunk_size, offer.size - start)
        if part.digest != offer.digest or part.index not in self.missing or len(part.data) != length:
            return
        self.data[start : start + length] = part.data
        self.missing.remove(part.index)

    def digest(self) -> str:
        start, sections = 0, []
        for section in self.offer.sections:
            data = bytes(self.data[start : start + section.size])
            sections.append(
                f"{section.name}\0{section.encoding}\0{section.manifest}\0{len(data)}\0".encode() + data
            )
            start += section.size
        return digest_of(*sections)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, chunk_size=st.integers(16, 500), link=LINKS, window=st.integers(1, 70))
def test_an_update_goes_up_whole(sizes: list[int], chunk_size: int, link: LossyLink, window: int) -> None:
    update = finished_update(*sections_of(sizes, 2))
    topic = t.UpdatesTopic("7")
    offered = codec.decode(topic, codec.encode(upload.offer_message(SENDER, 0, update, chunk_size)))
    assert isinstance(offered, m.Offer)
    receiver, seq = Receiver(offered, window), 1
    for _ in range(20_000):
        if not receiver.missing:
            break
        chunks = upload.granted_chunks(receiver.grant().chunks, offered.chunks)
        arriving: list[tuple[t.Topic, bytes]] = []
        for index in chunks:
            part = upload.chunk_message(SENDER, seq, update, chunk_size, index)
            arriving.append((topic, codec.encode(part)))
            seq += 1
        while arriving:
            for _, payload in link.next(arriving):
                try:
                    message = codec.decode(topic, payload)
                except codec.DecodeError:
                    continue
                if isinstance(message, m.UpdateChunk):
                    receiver.take(message)
    assert not receiver.missing, "it never ends"
    if link.damage and receiver.digest() != update.digest:
        event("wrong-digest")
        return
    assert bytes(receiver.data) == b"".join(bytes(s.data) for s in update.sections)
    assert receiver.digest() == update.digest


@given(
    sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=3),
    wanted=st.integers(1024, 2**28),
    largest=st.one_of(st.none(), st.integers(0, 12_000)),
)
def test_no_packet_is_larger_than_the_broker_takes(
    sizes: list[int], wanted: int, largest: int | None
) -> None:
    update = finished_update(*sections_of(sizes, 3))
    try:
        size = upload.chunk_size_for(SENDER, update, wanted, largest)
    except ValueError as error:
        event(f"refused: {str(error)[:30]}")
        assert largest is not None
        assert largest < 2_500
        return
    assert upload.MIN_CHUNK <= size <= max(wanted, upload.MIN_CHUNK)
    messages: list[m.Message] = [upload.offer_message(SENDER, 2**53, update, size)]
    messages.append(upload.chunk_message(SENDER, 2**53, update, size, 0))
    for message in messages:
        assert largest is None or len(codec.encode(message)) + upload.PACKET_OVERHEAD <= largest


@given(sizes=SIZES, cuts=st.lists(st.integers(0, 4_000), min_size=2, max_size=2))
def test_a_cut_is_a_piece_of_the_whole(sizes: list[int], cuts: list[int]) -> None:
    sections = sections_of(sizes, 4)
    whole = b"".join(bytes(s.data) for s in sections)
    start, end = sorted(cuts)
    assert bytes(slice_sections(sections, start, end)) == whole[start:end]
