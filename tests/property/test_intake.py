"""Uploads end with all their bytes, whatever the network does to chunks and grants (protocol, 6.2 to 6.6)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shared.transfer.upload_scheduler import MAX_PAIR_BYTES, ChunkGrant, UploadOffer, UploadScheduler

CHUNK = 10


def offered(client: str, size: int, digest: str = "d") -> UploadOffer:
    return UploadOffer(client, "s-" + client, 1, digest + client, size, CHUNK, max(1, -(-size // CHUNK)))


class Network:
    """Edges that send what they are granted, over a link that loses, repeats and reorders both ways."""

    def __init__(
        self, sizes: list[int], intake: UploadScheduler, chance: random.Random, loss: float, here: float = 0.0
    ) -> None:
        self.data = {f"e{i}": chance.randbytes(size) for i, size in enumerate(sizes)}
        self.offers = {name: offered(name, len(data)) for name, data in self.data.items()}
        self.received = {name: bytearray(len(data)) for name, data in self.data.items()}
        self.kept: dict[str, set[int]] = {name: set() for name in self.data}
        self.done: list[str] = []
        self.intake, self.chance, self.loss, self.now = intake, chance, loss, 0.0
        self.flying: list[tuple[str, int]] = []
        self.here = {
            name: bytes(chance.random() < here for _ in range(offer.chunks))
            for name, offer in self.offers.items()
        }
        """What an earlier life of the receiver had kept."""
        for name, came in self.here.items():
            for index in (index for index, it_did in enumerate(came) if it_did):
                self.keep(name, index)

    def lost(self) -> bool:
        return self.chance.random() < self.loss

    def hear(self, grants: tuple[ChunkGrant, ...]) -> None:
        for grant in grants:
            assert grant.offer == self.offers[grant.offer.client]
            assert len(set(grant.chunks)) == len(grant.chunks)
            assert not self.kept[grant.offer.client] & set(grant.chunks), "that is here already"
            if not self.lost():
                self.flying += [(grant.offer.client, index) for index in grant.chunks]

    def step(self) -> None:
        self.now += 0.5
        for name in self.data:
            if name not in self.done and self.chance.random() < 0.1:
                self.hear(self.intake.offer(self.offers[name], self.now, self.here[name]))
                if self.intake.is_complete(name):
                    assert all(self.here[name]), "else its last chunk would have said so"
                    self.finish(name)
        self.chance.shuffle(self.flying)
        landing, self.flying = self.flying[:20], self.flying[20:]
        for name, index in landing:
            if self.lost():
                continue
            self.land(name, index)
            if self.lost():
                self.land(name, index)  # a second time
        self.hear(self.intake.next_grants(self.now))

    def land(self, name: str, index: int) -> None:
        offer = self.offers[name]
        arrived = (name, 1, offer.digest, index, len(self.data[name][index * CHUNK : (index + 1) * CHUNK]))
        foreseen = self.intake.check_chunk(*arrived)
        assert foreseen == self.intake.check_chunk(*arrived), "to ask changes nothing"
        verdict = self.intake.receive_chunk(*arrived, self.now)
        assert verdict == foreseen
        if name in self.done:
            assert verdict == "not-granted"
            return
        assert verdict == ("duplicate" if index in self.kept[name] else "keep")
        self.keep(name, index)
        if self.intake.is_complete(name):
            self.finish(name)

    def keep(self, name: str, index: int) -> None:
        piece = self.data[name][index * CHUNK : (index + 1) * CHUNK]
        self.kept[name].add(index)
        self.received[name][index * CHUNK : index * CHUNK + len(piece)] = piece

    def finish(self, name: str) -> None:
        self.intake.remove(name)
        self.done.append(name)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=8),
    window=st.integers(1, 20),
    active_bytes=st.integers(0, 600),
    loss=st.sampled_from([0.0, 0.1, 0.5]),
    here=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_every_update_arrives_whole(
    sizes: list[int], window: int, active_bytes: int, loss: float, here: float, seed: int
) -> None:
    intake = UploadScheduler(window=window, active_bytes=active_bytes)
    network = Network(sizes, intake, random.Random(seed), loss, here)
    for _ in range(20_000):
        network.step()
        assert 0 <= intake.in_flight <= window
        if len(network.done) == len(sizes):
            break
    assert sorted(network.done) == sorted(network.data)
    assert {n: bytes(b) for n, b in network.received.items()} == network.data
    assert intake.in_flight == 0


def test_what_does_not_come_is_granted_again_after_5_seconds() -> None:
    """Clause 6.4."""
    intake = UploadScheduler()
    (first,) = intake.offer(offered("a", 35), 0.0)
    assert first.chunks == (0, 1, 2, 3)
    assert intake.receive_chunk("a", 1, "da", 2, CHUNK, 1.0) == "keep"
    assert intake.next_grants(5.9) == ()
    (again,) = intake.next_grants(6.1)
    assert again.chunks == (0, 1, 3)
    assert intake.next_grants(11.2) == (), "doubling"
    (third,) = intake.next_grants(16.2)
    assert third.chunks == (0, 1, 3)


def test_a_repeated_offer_is_granted_what_is_missing() -> None:
    """Clause 6.4: after a reconnect, to the new session."""
    intake = UploadScheduler()
    intake.offer(offered("a", 35), 0.0)
    intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0)
    intake.receive_chunk("a", 1, "da", 3, 5, 0.0)
    anew = UploadOffer("a", "another session", 1, "da", 35, CHUNK, 4)
    (grant,) = intake.offer(anew, 1.0)
    assert grant.offer.session == "another session"
    assert grant.chunks == (1, 2)


def test_what_is_here_already_is_not_granted() -> None:
    """Clause 6.4: after a restart of the aggregator."""
    intake = UploadScheduler()
    (grant,) = intake.offer(offered("a", 35), 0.0, b"\1\0\1\0")
    assert grant.chunks == (1, 3)
    assert intake.progress("a") == (2, 4)
    assert intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0) == "duplicate"
    assert intake.offer(offered("b", 35), 0.0, bytes([1] * 4)) == ()
    assert intake.is_complete("b")
    with pytest.raises(ValueError, match="received: 3 chunks"):
        intake.offer(offered("c", 35), 0.0, bytes(3))


def test_another_update_of_the_client_replaces_its_offer() -> None:
    intake = UploadScheduler()
    intake.offer(offered("a", 35), 0.0)
    intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0)
    (grant,) = intake.offer(offered("a", 25, digest="x"), 1.0)
    assert grant.chunks == (0, 1, 2)
    assert intake.receive_chunk("a", 1, "da", 1, CHUNK, 0.0) == "not-granted"
    assert intake.in_flight == 3


def test_what_was_not_granted_is_not_kept() -> None:
    """Clause 6.6."""
    intake = UploadScheduler(window=2)
    (grant,) = intake.offer(offered("a", 35), 0.0)
    assert grant.chunks == (0, 1)
    assert intake.receive_chunk("a", 1, "da", 3, 5, 0.0) == "not-granted"
    assert intake.receive_chunk("a", 1, "da", 4, CHUNK, 0.0) == "not-granted"
    assert intake.receive_chunk("b", 1, "da", 0, CHUNK, 0.0) == "not-granted"
    assert intake.receive_chunk("a", 2, "da", 0, CHUNK, 0.0) == "not-granted"
    assert intake.receive_chunk("a", 1, "da", 0, CHUNK - 1, 0.0) == "wrong-size"
    assert intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0) == "keep"
    assert intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0) == "duplicate"


def test_few_offers_are_active_at_a_time_and_a_stalled_one_makes_room() -> None:
    intake = UploadScheduler(window=100, active_bytes=0)
    for name in "abc":
        intake.offer(offered(name, 40), 0.0)
    granted = [intake.progress(name) for name in "abc"]
    assert granted == [(0, 4)] * 3
    assert intake.in_flight == 2 * 4, "two, since they are small enough to come side by side"
    assert intake.receive_chunk("c", 1, "dc", 0, CHUNK, 0.0) == "not-granted"
    assert {g.offer.client for g in intake.next_grants(5.1)} == {"a", "b"}
    assert "c" in {g.offer.client for g in intake.next_grants(15.3)}, "silent ones have made room"


def test_an_offer_larger_than_all_the_room_is_taken_in_alone() -> None:
    def large(client: str) -> UploadOffer:
        return UploadOffer(client, "s", 1, "d", MAX_PAIR_BYTES, MAX_PAIR_BYTES // 4, 4)

    intake = UploadScheduler(window=100)
    assert [g.offer.client for g in intake.offer(large("a"), 0.0)] == ["a"]
    assert intake.offer(large("b"), 0.0) == ()
    intake.remove("a")
    assert [g.offer.client for g in intake.next_grants(0.0)] == ["b"]


def test_an_offer_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="chunks: 3"):
        UploadOffer("a", "s", 1, "d", 35, CHUNK, 3)


def test_clearing_forgets_everything() -> None:
    intake = UploadScheduler()
    intake.offer(offered("a", 35), 0.0)
    assert intake.clear() == ("a",)
    assert intake.in_flight == 0
    assert intake.receive_chunk("a", 1, "da", 0, CHUNK, 0.0) == "not-granted"
