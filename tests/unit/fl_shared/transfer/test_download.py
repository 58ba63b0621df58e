"""A download requests chunks until the digest is right, or fails."""

from __future__ import annotations

import time

import pytest

from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.download import ModelDownload
from fl_shared.transfer.publication import ModelPublication, TransferError, check_manifest, model_publication
from tests.support.builders import model_section
from tests.support.published_model import Broker, fetch, scoped


def test_a_small_model_takes_one_turn() -> None:
    model = model_publication([model_section()], 2**20)
    download = ModelDownload(model.digest)
    broker = fetch(model, download)
    assert download.state == "complete"
    assert [bytes(s.data) for s in download.model] == [bytes(model_section().data)]
    assert len(broker.asked) == 2, "the manifest and chunk 0, at once"
    assert broker.subscribed == set(), "and nothing more"


def test_the_model_is_put_together_where_it_is_told_to() -> None:
    model = model_publication([model_section(50, name="control"), model_section(30, name="weights")], 100)
    buffers: list[bytearray] = []

    def allocate(size: int) -> bytearray:
        buffers.append(bytearray(size))
        return buffers[-1]

    download = ModelDownload(model.digest, allocate=allocate)
    fetch(model, download)
    assert download.state == "complete"
    [buffer] = buffers
    assert buffer == b"".join(bytes(s.data) for s in model.sections)
    buffer[0] ^= 1
    assert download.model[0].data != model.sections[0].data, "the same memory"
    view = download.model[0].data
    assert isinstance(view, memoryview)
    assert view.readonly


def test_sections_without_a_byte_have_a_digest_too() -> None:
    empty = Manifest(arrays=(ArraySpec(name="w", shape=(0,)),))
    for sections in (
        [ModelSection("weights", empty, b"")],
        [ModelSection("control", empty, b""), model_section()],
        [model_section(name="control"), ModelSection("weights", empty, b"")],
    ):
        model = model_publication(sections, 300)
        download = ModelDownload(model.digest)
        fetch(model, download)
        assert download.state == "complete"
        assert [bytes(s.data) for s in download.model] == [bytes(s.data) for s in sections]


def test_3_6_never_more_than_a_window_is_asked_for_and_in_few_packets() -> None:
    model = model_publication([model_section(5000)], 100)
    download = ModelDownload(model.digest)
    broker = fetch(model, download)
    assert model.chunks == 200
    assert broker.most <= 16 + 8, "a window, and what has come and is not unsubscribed from yet"
    assert broker.subscribed == set()
    assert len(broker.asked) == 201, "each topic once"
    assert broker.packets <= 200 / 8 * 1.2 + 2


def test_large_chunks_make_a_small_window() -> None:
    model = model_publication([model_section(6 * 2**20)], 6 * 2**20)
    download = ModelDownload(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.receive(message, 0.0)
    assert len(download.subscription_changes(0.0).subscribe) == 2


def test_the_pipe_is_kept_full() -> None:
    """More is asked for while half of the window is still under way."""
    model = model_publication([model_section(5000)], 100)
    download = ModelDownload(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.receive(message, 0.0)
    under_way = list(broker.ask(download, 0.0))
    assert len(under_way) == 16
    for number in range(8):
        assert list(broker.ask(download, 0.0)) == []
        download.receive(under_way[number], 0.0)
    assert len(list(broker.ask(download, 0.0))) == 8


def test_what_does_not_come_is_asked_for_again_ever_more_slowly() -> None:
    download = ModelDownload("ab" * 32)
    first = download.subscription_changes(0.0)
    assert set(first.subscribe) == {t.ManifestTopic("ab" * 6), t.ChunkTopic("ab" * 6, 0)}
    pauses, now = [], 0.0
    for _ in range(5):
        due = download.due()
        assert due is not None
        early = download.subscription_changes((now + due) / 2)
        assert (early.subscribe, early.unsubscribe) == ((), ()), "not before it is due"
        again = download.subscription_changes(due)
        assert set(again.subscribe) == set(again.unsubscribe) == set(first.subscribe)
        pauses.append(due - now)
        now = due
    assert pauses == [5, 10, 20, 30, 30]


def started(values: int = 5000) -> tuple[ModelPublication, ModelDownload, Broker]:
    """A download of 200 chunks whose manifest and first chunk came at second 0, and which has asked for 16 more."""
    model = model_publication([model_section(values)], 100)
    download, broker = ModelDownload(model.digest), Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.receive(message, 0.0)
    return model, download, broker


def test_on_a_slow_link_nothing_is_asked_for_twice_while_something_comes() -> None:
    """One chunk in 4 s, 16 asked for at once: the last of them comes after a minute."""
    _, download, broker = started()
    arriving = list(broker.ask(download, 0.0))
    now = 0.0
    while len(broker.asked) < 60:
        now += 2.0
        assert not set(broker.asked[:-24]) & set(download.subscription_changes(now).subscribe)
        now += 2.0
        download.receive(arriving.pop(0), now)
        arriving += broker.ask(download, now)
    assert len(broker.asked) == len(set(broker.asked))


def test_a_link_that_is_slower_than_the_patience_is_learnt_about() -> None:
    """One chunk in 8 s. That the first ones are asked for twice cannot be helped."""
    _, download, broker = started()
    arriving = list(broker.ask(download, 0.0))
    now, repeated = 0.0, []
    for _ in range(30):
        for _ in range(4):
            now += 2.0
            before = set(broker.asked)
            new = list(broker.ask(download, now))
            repeated += [
                now
                for message in new
                if t.ChunkTopic(message.digest[:12], getattr(message, "index", 0)) in before
            ]
            arriving += new
        download.receive(arriving.pop(0), now)
    assert max(repeated) < 20


def test_what_others_have_overtaken_is_asked_for_at_once() -> None:
    _, download, broker = started()
    arriving = list(broker.ask(download, 0.1))
    lost, now = arriving.pop(3), 0.1
    for _ in range(40):
        now += 0.01
        download.receive(arriving.pop(0), now)
        arriving += broker.ask(download, now)
    assert now < 1.0
    assert [getattr(message, "index", None) for message in arriving].count(getattr(lost, "index", -1)) <= 1
    again = [topic for topic in broker.asked if getattr(topic, "index", None) == getattr(lost, "index", -1)]
    assert len(again) == 2


def test_a_broker_that_drops_is_asked_for_less() -> None:
    _, download, broker = started()
    assert len(list(broker.ask(download, 0.0))) == 16
    due = download.due()
    assert due is not None
    assert len(download.subscription_changes(due).subscribe) == 8
    later = download.due()
    assert later is not None
    assert len(download.subscription_changes(later).subscribe) == 4


def test_the_work_for_a_chunk_does_not_grow_with_their_number() -> None:
    def seconds(chunks: int) -> float:
        model = model_publication([model_section(chunks)], 4)
        kept = scoped(model)
        download = ModelDownload(model.digest)
        now, begun = 0.0, time.process_time()
        while download.state == "open":
            for topic in download.subscription_changes(now).subscribe:
                download.receive(kept[topic], now)
        return (time.process_time() - begun) / chunks

    seconds(500)
    few, many = seconds(1000), seconds(20_000)
    assert many < 4 * few, f"{few * 1e6:.0f} µs a chunk of 1,000, {many * 1e6:.0f} of 20,000"


def test_a_new_connection_asks_only_for_what_is_missing() -> None:
    model = model_publication([model_section(500)], 100)
    download = ModelDownload(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.receive(message, 0.0)
    list(broker.ask(download, 0.0))
    download.reset_requests()
    asking = download.subscription_changes(1.0)
    assert asking.unsubscribe == ()
    assert asking.subscribe == tuple(t.ChunkTopic(model.digest[:12], i) for i in range(1, 17))


def test_a_corrupt_chunk_is_not_taken_and_asked_for_again() -> None:
    model = model_publication([model_section(100)], 100)
    download = ModelDownload(model.digest)
    broker = Broker(model)
    for message in list(broker.ask(download, 0.0)):
        download.receive(message, 0.0)
    good = model.chunk(1, run="R", incarnation=1, seq=0)
    list(broker.ask(download, 0.0))
    download.receive(good.model_copy(update={"data": good.data[:-1]}), 0.0)
    download.receive(good.model_copy(update={"index": 77}), 0.0)
    due = download.due()
    assert due is not None
    assert t.ChunkTopic(model.digest[:12], 1) in download.subscription_changes(due).subscribe
    for index in (3, 1, 2):
        download.receive(model.chunk(index, run="R", incarnation=1, seq=0), 0.0)
    assert download.state == "complete"


def test_a_wrong_digest_begins_anew_and_then_fails() -> None:
    model = model_publication([model_section(100)], 1000)
    wrong = model_section(100, seed=1).data
    lying = model.chunk(0, run="R", incarnation=1, seq=0).model_copy(update={"data": wrong})
    download = ModelDownload(model.digest)
    for attempt in range(3):
        assert download.state == "open"
        assert download.subscription_changes(float(attempt)).subscribe, "asked for again at once"
        download.receive(model.manifest(run="R", incarnation=1, seq=0), 0.0)
        download.receive(lying, 0.0)
    assert download.state == "failed"
    assert "digest" in download.failure
    once = ModelDownload(model.digest)
    once.receive(model.manifest(run="R", incarnation=1, seq=0), 0.0)
    once.receive(lying, 0.0)
    fetch(model, once)
    assert once.state == "complete", "one liar among the messages is no reason to give up"


def test_2_2_a_cleared_topic_supersedes_a_model_that_is_not_here_yet() -> None:
    model = model_publication([model_section()], 1000)
    download = ModelDownload(model.digest)
    download.receive(model.manifest(run="R", incarnation=1, seq=0), 0.0)
    download.subscription_changes(0.0)
    download.cleared()
    assert download.state == "superseded"
    assert download.subscription_changes(1.0).subscribe == ()
    assert download.due() is None
    done = ModelDownload(model.digest)
    fetch(model, done)
    done.cleared()
    assert done.state == "complete"


def test_messages_of_another_model_with_the_same_topic_are_not_taken() -> None:
    model = model_publication([model_section()], 2**20)
    download = ModelDownload(model.digest[:12] + "0" * 52)
    for _ in range(16):
        assert download.state == "open"
        download.receive(model.manifest(run="R", incarnation=1, seq=0), 0.0)
    assert download.state == "failed"


def test_garbage_ends_a_download_after_a_while() -> None:
    download = ModelDownload("ab" * 32)
    for _ in range(16):
        assert download.state == "open"
        download.count_invalid("not msgpack")
    assert download.state == "failed"
    assert "not msgpack" in download.failure


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"size": 2**40, "chunks": 1_000_000, "chunk_size": 2**28}, "size"),
        ({"chunks": 2}, "chunks"),
        ({"chunk_size": 1}, "chunks"),
        ({"size": 4004, "chunk_size": 4004}, "sizes of the sections have another sum"),
    ],
)
def test_absurd_manifests_are_refused(changes: dict[str, int], names: str) -> None:
    model = model_publication([model_section()], 4000)
    manifest = model.manifest(run="R", incarnation=1, seq=0).model_copy(update=changes)
    with pytest.raises(TransferError, match=names):
        check_manifest(manifest)
    download = ModelDownload(model.digest)
    download.receive(manifest, 0.0)
    assert download.progress == "its manifest has not arrived"


def test_a_section_whose_arrays_do_not_fill_it_is_refused() -> None:
    manifest = model_publication([model_section()], 4000).manifest(run="R", incarnation=1, seq=0)
    part = manifest.sections[0].model_copy(update={"arrays": (ArraySpec(name="w", shape=(999,)),)})
    with pytest.raises(TransferError, match="expected 3996"):
        check_manifest(manifest.model_copy(update={"sections": (part,)}))
    twice = manifest.sections[0].model_copy(update={"arrays": (ArraySpec(name="w", shape=(500,)),) * 2})
    with pytest.raises(TransferError, match="ascending"):
        check_manifest(manifest.model_copy(update={"sections": (twice,)}))
