"""Models as retained messages, and back. The numbers in the names are clauses of docs/protocol.md."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shared import codec
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.tensors import ArraySpec, Manifest
from fl_shared.transfer import (
    Download,
    ModelSection,
    Publication,
    TransferError,
    check_manifest,
    model_digest,
    publication,
    update_sections,
)
from tests.samples import DATA, DIGEST, MANIFEST

SCOPE = {"run": "R", "epoch": 1, "seq": 0}


def section(name: str = "weights", values: int = 1000, seed: int = 0) -> ModelSection:
    data = np.random.default_rng(seed).standard_normal(values).astype("<f4").tobytes()
    return ModelSection(name, Manifest(arrays=(ArraySpec(name="w", shape=(values,)),)), data)


def scoped(model: Publication) -> dict[t.Topic, m.ModelManifest | m.ModelChunk]:
    """What lies at the broker."""
    kept: dict[t.Topic, m.ModelManifest | m.ModelChunk] = {}
    for topic in model.topics():
        match topic:
            case t.ManifestTopic():
                kept[topic] = model.manifest(run="R", epoch=1, seq=0)
            case t.ChunkTopic(index=index):
                kept[topic] = model.chunk(index, run="R", epoch=1, seq=0)
    return kept


class Broker:
    """Retained messages, and one subscriber: what it asks for comes, as often as it asks."""

    def __init__(self, model: Publication) -> None:
        self.kept = scoped(model)
        self.subscribed: set[t.Topic] = set()
        self.most = 0
        self.asked: list[t.Topic] = []

    def ask(self, download: Download, now: float) -> Iterator[m.ModelManifest | m.ModelChunk]:
        asking = download.ask(now)
        assert set(asking.unsubscribe) <= self.subscribed
        self.subscribed -= set(asking.unsubscribe)
        assert not self.subscribed & set(asking.subscribe), "asked for twice"
        self.subscribed |= set(asking.subscribe)
        self.asked += asking.subscribe
        self.most = max(self.most, len(self.subscribed))
        assert set(download.asked()) == self.subscribed
        return (self.kept[topic] for topic in asking.subscribe if topic in self.kept)


def fetch(model: Publication, download: Download, lose: float = 0.0, seed: int = 0) -> Broker:
    """A whole download, with messages out of order, duplicated, and lost."""
    broker, chance, now = Broker(model), random.Random(seed), 0.0
    arriving = list(broker.ask(download, now))
    for _ in range(20_000):
        if download.state != "open":
            break
        if not arriving:
            due = download.due()
            assert due is not None, "nothing comes, and nothing is asked for"
            now = max(now, due)
        else:
            message = arriving.pop(chance.randrange(len(arriving)))
            if chance.random() >= lose:
                download.take(message)
                if chance.random() < 0.2:
                    download.take(message)
        arriving += broker.ask(download, now)
    list(broker.ask(download, now))
    return broker


# --- digests and publications -----------------------------------------------------------------------------


def test_3_4_the_digest_of_a_model_is_that_of_the_golden_vectors() -> None:
    assert model_digest([ModelSection("weights", MANIFEST, DATA)]) == DIGEST


def test_3_6_chunks_are_the_sections_cut_in_pieces() -> None:
    sections = [section("control", 10), section("weights", 33)]
    model = publication(sections, chunk_size=30)
    whole = b"".join(bytes(s.data) for s in sections)
    chunks = [model.chunk(i, run="R", epoch=1, seq=0) for i in range(model.chunks)]
    assert b"".join(chunk.data for chunk in chunks) == whole
    assert [len(chunk.data) for chunk in chunks[:-1]] == [30] * (len(chunks) - 1)
    assert all(chunk.crc32 == zlib.crc32(chunk.data) for chunk in chunks)
    assert model.manifest(run="R", epoch=1, seq=0).size == len(whole)
    with pytest.raises(IndexError):
        model.chunk(model.chunks, run="R", epoch=1, seq=0)


def test_topics_name_the_manifest_last() -> None:
    model = publication([section()], 1000)
    short = model.digest[:12]
    assert model.topics() == (*(t.ChunkTopic(short, i) for i in range(4)), t.ManifestTopic(short))


@pytest.mark.parametrize(
    ("sections", "chunk_size", "names"),
    [
        ([section()], 0, "chunk_size"),
        ([section("control")], 100, "weights"),
        ([section("weights"), section("control")], 100, "ascending"),
        ([section(), section()], 100, "unique"),
        ([ModelSection("weights", MANIFEST, DATA[:-1])], 100, "15 bytes, expected 16"),
        ([section(values=300_000)], 1, "more than 1000000 chunks"),
    ],
)
def test_what_is_no_model_is_not_published(sections: list[ModelSection], chunk_size: int, names: str) -> None:
    with pytest.raises(TransferError, match=names):
        publication(sections, chunk_size)


@pytest.mark.parametrize("with_arrays", [True, False])
def test_5_3_arrays_travel_only_where_they_are_asked_for(with_arrays: bool) -> None:
    [part] = update_sections([section()], with_arrays=with_arrays)
    assert (part.arrays is not None) is with_arrays


# --- downloads --------------------------------------------------------------------------------------------


def test_a_small_model_takes_one_turn() -> None:
    model = publication([section()], 2**20)
    download = Download(model.digest)
    broker = fetch(model, download)
    assert download.state == "complete"
    assert [bytes(s.data) for s in download.model] == [bytes(section().data)]
    assert len(broker.asked) == 2, "the manifest and chunk 0, at once"
    assert broker.subscribed == set(), "and nothing more"


def test_one_chunk_is_not_copied() -> None:
    model = publication([section()], 2**20)
    download = Download(model.digest)
    chunk = model.chunk(0, run="R", epoch=1, seq=0)
    download.take(model.manifest(run="R", epoch=1, seq=0))
    download.take(chunk)
    assert download.model[0].data is chunk.data


def test_3_6_never_more_than_a_window_is_asked_for() -> None:
    model = publication([section(values=5000)], 100)
    download = Download(model.digest)
    broker = fetch(model, download)
    assert model.chunks == 200
    assert broker.most == 8
    assert broker.subscribed == set()
    assert len(broker.asked) == 201, "each topic once"


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    chunk_size=st.integers(1, 500),
    lose=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 1000),
)
def test_a_model_arrives_whole_whatever_is_lost_doubled_or_turned_round(
    sizes: list[int], chunk_size: int, lose: float, seed: int
) -> None:
    names = ["control", "momentum", "weights"][-len(sizes) :]
    sections = [section(name, values, seed) for name, values in zip(names, sizes, strict=True)]
    model = publication(sections, chunk_size)
    download = Download(model.digest)
    fetch(model, download, lose, seed)
    assert download.state == "complete"
    assert [(s.name, s.manifest, bytes(s.data)) for s in download.model] == [
        (s.name, s.manifest, bytes(s.data)) for s in sections
    ]
    assert model_digest(download.model) == model.digest


def test_what_does_not_come_is_asked_for_again_ever_more_slowly() -> None:
    download = Download("ab" * 32)
    first = download.ask(0.0)
    assert set(first.subscribe) == {t.ManifestTopic("ab" * 6), t.ChunkTopic("ab" * 6, 0)}
    pauses, now = [], 0.0
    for _ in range(5):
        due = download.due()
        assert due is not None
        assert download.ask((now + due) / 2) == download.ask(now), "not before it is due"
        again = download.ask(due)
        assert set(again.subscribe) == set(again.unsubscribe) == set(first.subscribe)
        pauses.append(due - now)
        now = due
    assert pauses == [5, 10, 20, 30, 30]


def test_a_new_connection_asks_only_for_what_is_missing() -> None:
    model = publication([section(values=500)], 100)
    download = Download(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.take(message)
    list(broker.ask(download, 0.0))
    download.forget_asked()
    asking = download.ask(1.0)
    assert asking.unsubscribe == ()
    assert asking.subscribe == tuple(t.ChunkTopic(model.digest[:12], i) for i in range(1, 9))


def test_a_corrupt_chunk_is_not_taken_and_asked_for_again() -> None:
    model = publication([section(values=100)], 100)
    download = Download(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.take(message)
    good = model.chunk(1, run="R", epoch=1, seq=0)
    list(broker.ask(download, 0.0))
    download.take(good.model_copy(update={"data": bytes(100)}))
    download.take(good.model_copy(update={"data": good.data[:-1], "crc32": zlib.crc32(good.data[:-1])}))
    download.take(good.model_copy(update={"index": 77}))
    due = download.due()
    assert due is not None
    assert t.ChunkTopic(model.digest[:12], 1) in download.ask(due).subscribe
    for index in (3, 1, 2):
        download.take(model.chunk(index, run="R", epoch=1, seq=0))
    assert download.state == "complete"


def test_a_wrong_digest_begins_anew_and_then_fails() -> None:
    model = publication([section(values=100)], 1000)
    wrong = section(values=100, seed=1).data
    lying = model.chunk(0, run="R", epoch=1, seq=0).model_copy(
        update={"data": wrong, "crc32": zlib.crc32(wrong)}
    )
    download = Download(model.digest)
    for attempt in range(3):
        assert download.state == "open"
        assert download.ask(float(attempt)).subscribe, "asked for again at once"
        download.take(model.manifest(run="R", epoch=1, seq=0))
        download.take(lying)
    assert download.state == "failed"
    assert "digest" in download.failure
    once = Download(model.digest)
    once.take(model.manifest(run="R", epoch=1, seq=0))
    once.take(lying)
    fetch(model, once)
    assert once.state == "complete", "one liar among the messages is no reason to give up"


def test_2_2_a_cleared_topic_supersedes_a_model_that_is_not_here_yet() -> None:
    model = publication([section()], 1000)
    download = Download(model.digest)
    download.take(model.manifest(run="R", epoch=1, seq=0))
    download.ask(0.0)
    download.cleared()
    assert download.state == "superseded"
    assert download.ask(1.0).subscribe == ()
    assert download.due() is None
    done = Download(model.digest)
    fetch(model, done)
    done.cleared()
    assert done.state == "complete"


def test_messages_of_another_model_with_the_same_topic_are_not_taken() -> None:
    model = publication([section()], 2**20)
    download = Download(model.digest[:12] + "0" * 52)
    for _ in range(16):
        assert download.state == "open"
        download.take(model.manifest(run="R", epoch=1, seq=0))
    assert download.state == "failed"


def test_garbage_ends_a_download_after_a_while() -> None:
    download = Download("ab" * 32)
    for _ in range(16):
        assert download.state == "open"
        download.refuse("not msgpack")
    assert download.state == "failed"
    assert "not msgpack" in download.failure


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"size": 2**40, "chunks": 1_000_000, "chunk_size": 2**28}, "size"),
        ({"chunks": 2}, "chunks"),
        ({"chunk_size": 1}, "chunks"),
        ({"size": 4004, "chunk_size": 4004}, "sections have other sizes"),
    ],
)
def test_absurd_manifests_are_refused(changes: dict[str, int], names: str) -> None:
    model = publication([section()], 4000)
    manifest = model.manifest(run="R", epoch=1, seq=0).model_copy(update=changes)
    with pytest.raises(TransferError, match=names):
        check_manifest(manifest)
    download = Download(model.digest)
    download.take(manifest)
    assert download.progress == "its manifest has not come"


def test_a_section_whose_arrays_do_not_fill_it_is_refused() -> None:
    manifest = publication([section()], 4000).manifest(run="R", epoch=1, seq=0)
    part = manifest.sections[0].model_copy(update={"arrays": (ArraySpec(name="w", shape=(999,)),)})
    with pytest.raises(TransferError, match="expected 3996"):
        check_manifest(manifest.model_copy(update={"sections": (part,)}))
    twice = manifest.sections[0].model_copy(update={"arrays": (ArraySpec(name="w", shape=(500,)),) * 2})
    with pytest.raises(TransferError, match="ascending"):
        check_manifest(manifest.model_copy(update={"sections": (twice,)}))


def test_a_model_survives_the_wire() -> None:
    model = publication([section()], 1500)
    download = Download(model.digest)
    for topic, message in scoped(model).items():
        decoded = codec.decode(topic, codec.encode(message))
        assert isinstance(decoded, m.ModelManifest | m.ModelChunk)
        download.take(decoded)
    # Chunks that come before the manifest are not hoarded, but for the first.
    fetch(model, download)
    assert download.state == "complete"
