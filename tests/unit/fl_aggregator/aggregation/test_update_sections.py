"""An update of two sections on its whole way, from the edge that has made it to the average; protocol, 5.13.

The product's strategies need one section. That of these tests needs two, and averages one of them as FedAvg does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Strategy
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.aggregation.validation import InvalidUpdate
from fl_aggregator.messaging.translate import event_from
from fl_aggregator.round import events as on
from fl_aggregator.storage.checkpoint import read_safetensors
from fl_edge.session.effects import Send, SendChunks
from fl_edge.session.state import Session
from fl_edge.session.work import PendingUpdate
from fl_edge.storage import update_store
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.sections import DELTA, ModelSection
from fl_shared.transfer import upload
from fl_shared.transfer.upload import FinishedUpdate, Sender
from tests.support.aggregation_harness import BASE, CHUNK, REFERENCE, Incarnation
from tests.support.builders import finished_update
from tests.support.session_script import EDGE, SessionScript

SCOPE = EnvelopeSource("R", 1)
SENDER = Sender("7", "s1", SCOPE.run, SCOPE.incarnation, 1)
TOPIC = t.UpdatesTopic("7")
NAMES = ("control", DELTA)
SIZE = 2 * 4 * BASE.manifest.values
CHUNKS = 12
"""The sixth has bytes of both sections."""


class ControlIgnored:
    """A correction whose updates have a second section, of which nothing is made."""

    name: ClassVar[str] = "ignored"
    sections: ClassVar[tuple[str, ...]] = ("control",)

    def state(self) -> dict[str, float]:
        return {}

    def absorb(self, block: Block, closed: ClosedRound) -> None:
        pass


TWO_SECTIONS = Strategy(Mean(), Sgd(), correct=ControlIgnored())


def finished(names: Sequence[str] = NAMES) -> FinishedUpdate:
    chance = np.random.default_rng(7)
    vectors = [(chance.normal(size=BASE.manifest.values) * 0.1).astype("<f4") for _ in names]
    sections = [
        ModelSection(name, BASE.manifest, vector.tobytes())
        for name, vector in zip(names, vectors, strict=True)
    ]
    return finished_update(*sections, base=BASE.digest, examples=30)


UPDATE = finished()

Incarnations = Callable[[], Incarnation]


@pytest.fixture
def incarnations(tmp_path: Path) -> Iterator[Incarnations]:
    """The next incarnation in the same directory, with round 1 open: the one before is killed."""
    now: list[Incarnation] = []

    def following() -> Incarnation:
        if now:
            now.pop().end()
        now.append(Incarnation(tmp_path / "run", 0, TWO_SECTIONS))
        now[0].worker.begin_round(REFERENCE, "f32")
        return now[0]

    yield following
    now.pop().end()


def arrived(message: m.Message) -> m.Message:
    """The message as the aggregator reads it."""
    return codec.decode(TOPIC, codec.encode(message))


def offered(update: FinishedUpdate = UPDATE) -> tuple[m.Offer, on.UpdateMetadata]:
    offer = arrived(upload.offer_message(SENDER, 1, update, CHUNK))
    assert isinstance(offer, m.Offer)
    event = event_from(TOPIC, offer, SCOPE, 0.0, 0)
    assert isinstance(event, on.UpdateOffered)
    return offer, event.update


def put(incarnation: Incarnation, *indices: int) -> on.UpdateMetadata | None:
    complete = None
    for index in indices:
        chunk = arrived(upload.chunk_message(SENDER, 1, UPDATE, CHUNK, index))
        assert isinstance(chunk, m.UpdateChunk)
        complete = incarnation.worker.uploads.receive_chunk(chunk, 0.0)
    return complete


def kept(incarnation: Incarnation, facts: on.UpdateMetadata, whole: m.Update | None) -> None:
    """The worker checks the update, keeps and folds it."""
    incarnation.worker.store(facts, whole)
    assert isinstance(incarnation.next().event, on.UpdateStored)
    if whole is None:
        assert incarnation.next().folded is not None  # it has come in chunks, whose memory is released now


def is_averaged(incarnation: Incarnation, facts: on.UpdateMetadata) -> None:
    """One update alone: the model moves by its delta, and by nothing else."""
    digest = incarnation.average((facts,))
    model = read_safetensors(incarnation.directory.checkpoints.version_path(1))
    assert model.digest == digest
    delta = np.frombuffer(UPDATE.sections[1].data, "<f4")
    assert np.allclose(model.weights, BASE.weights + delta, atol=1e-6)


def spooled(incarnation: Incarnation) -> dict[str, bytes]:
    content = incarnation.directory.spool.read(1, "7")
    assert content.digest == UPDATE.digest
    return {section.name: bytes(section.data) for section in content.sections}


SPOOLED = {section.name: bytes(section.data) for section in UPDATE.sections}


def test_it_is_sent_whole(incarnations: Incarnations) -> None:
    incarnation = incarnations()
    whole = arrived(upload.update_message(SENDER, 1, UPDATE))
    assert isinstance(whole, m.Update)
    event = event_from(TOPIC, whole, SCOPE, 0.0, 0)
    assert isinstance(event, on.UpdateArrived)
    kept(incarnation, event.update, whole)
    assert spooled(incarnation) == SPOOLED
    is_averaged(incarnation, event.update)


@pytest.mark.parametrize(
    "order",
    [range(CHUNKS), range(CHUNKS - 1, -1, -1), [5, 11, 0, 6, 4, 10, 1, 7, 3, 9, 2, 8]],
    ids=["in order", "backwards", "mixed"],
)
def test_it_is_offered_and_its_chunks_come_in_any_order(
    incarnations: Incarnations, order: Sequence[int]
) -> None:
    incarnation = incarnations()
    offer, facts = offered()
    assert (offer.size, offer.chunks) == (SIZE, CHUNKS)
    assert incarnation.worker.receive(offer, facts, 0.0) is None
    assert [grant.chunks for grant in incarnation.granted] == [tuple(range(CHUNKS))]
    assert put(incarnation, *order) == facts
    kept(incarnation, facts, None)
    assert spooled(incarnation) == SPOOLED
    is_averaged(incarnation, facts)


@pytest.mark.parametrize("came", [(0, 1, 2, 3, 4, 5), (5, 6), (11, 5, 0), tuple(range(CHUNKS))])
def test_the_aggregator_is_killed_between_chunks_and_goes_on(
    incarnations: Incarnations, came: tuple[int, ...]
) -> None:
    offer, facts = offered()
    first = incarnations()
    first.worker.receive(offer, facts, 0.0)
    put(first, *came)
    second = incarnations()
    second.worker.restore(1, ())
    complete = second.worker.receive(offer, facts, 0.0)
    missing = tuple(index for index in range(CHUNKS) if index not in came)
    assert [grant.chunks for grant in second.granted] == ([missing] if missing else [])
    assert (complete or put(second, *missing)) == facts
    kept(second, facts, None)
    assert spooled(second) == SPOOLED
    is_averaged(second, facts)


def test_what_was_accepted_is_read_from_the_spool_after_a_kill(incarnations: Incarnations) -> None:
    offer, facts = offered()
    first = incarnations()
    first.worker.receive(offer, facts, 0.0)
    put(first, *range(CHUNKS))
    kept(first, facts, None)
    second = incarnations()
    assert second.worker.restore(1, (facts,)) == ()
    is_averaged(second, facts)


@pytest.mark.parametrize("section", [0, 1])
def test_a_bit_that_flips_in_either_section_of_the_spool_is_noticed(
    incarnations: Incarnations, section: int
) -> None:
    offer, facts = offered()
    first = incarnations()
    first.worker.receive(offer, facts, 0.0)
    put(first, *range(CHUNKS))
    kept(first, facts, None)
    path = first.directory.path / "spool" / "1" / "7.update"
    whole = bytearray(path.read_bytes())
    whole[section * SIZE // 2 + 100] ^= 1
    path.write_bytes(whole)
    second = incarnations()
    assert second.worker.restore(1, (facts,)) == ("7",)


def test_an_edge_that_is_killed_sends_it_again(incarnations: Incarnations, tmp_path: Path) -> None:
    """5.5, 6.2: from its state directory to the average of the aggregator."""
    path = tmp_path / update_store.FILE_NAME
    before = SessionScript(kept=1).session.restored_update
    assert before is not None
    update_store.write(path, "7", PendingUpdate(before.selected, UPDATE))
    found = update_store.read(path, "7")
    assert found is not None
    assert found.update == UPDATE
    # A new process.
    script = SessionScript()
    small = found.selected.model_copy(update={"inline_limit": 0})
    script.state = Session(EDGE, restored_update=PendingUpdate(small, found.update))
    [offer] = [
        effect.message
        for effect in script.do("connected s2", "admitted part=3/20")
        if isinstance(effect, Send) and isinstance(effect.message, m.Offer)
    ]
    assert (offer.digest, offer.size, offer.session) == (UPDATE.digest, SIZE, "s2")
    [sending] = script.do(f"grant 1 0 digest={UPDATE.digest}")
    assert isinstance(sending, SendChunks)
    incarnation = incarnations()
    read = arrived(offer)
    assert isinstance(read, m.Offer)
    event = event_from(TOPIC, read, SCOPE, 0.0, 0)
    assert isinstance(event, on.UpdateOffered)
    assert incarnation.worker.receive(read, event.update, 0.0) is None
    chunk = arrived(upload.chunk_message(sending.sender, 9, sending.update, sending.chunk_size, 0))
    assert isinstance(chunk, m.UpdateChunk)
    assert incarnation.worker.uploads.receive_chunk(chunk, 0.0) == event.update
    kept(incarnation, event.update, None)
    assert spooled(incarnation) == SPOOLED
    is_averaged(incarnation, event.update)


WRONG = [names for count in (1, 2, 3) for names in itertools.combinations(("a", "control", DELTA), count)]
WRONG.remove(NAMES)


@pytest.mark.parametrize("names", WRONG, ids="-".join)
def test_6_7_other_sections_are_refused_before_a_byte_is_granted(
    incarnations: Incarnations, names: tuple[str, ...]
) -> None:
    """5.13."""
    incarnation = incarnations()
    with pytest.raises(InvalidUpdate) as caught:
        incarnation.worker.receive(*offered(finished(names)), 0.0)
    assert caught.value.reason == "wrong-manifest"
    assert str(caught.value) == f"sections: {list(names)}, expected ['control', 'delta']"
    assert incarnation.granted == []


@pytest.mark.parametrize("names", WRONG, ids="-".join)
def test_5_13_other_sections_that_come_whole_are_unusable(
    incarnations: Incarnations, names: tuple[str, ...]
) -> None:
    incarnation = incarnations()
    whole = arrived(upload.update_message(SENDER, 1, finished(names)))
    assert isinstance(whole, m.Update)
    event = event_from(TOPIC, whole, SCOPE, 0.0, 0)
    assert isinstance(event, on.UpdateArrived)
    incarnation.worker.store(event.update, whole)
    unusable = incarnation.next().event
    assert isinstance(unusable, on.UpdateInvalid)
    assert (unusable.reason, unusable.detail) == (
        "wrong-manifest",
        f"sections: {list(names)}, expected ['control', 'delta']",
    )


def test_5_13_first_weights_are_one_section_whatever_the_strategy(tmp_path: Path) -> None:
    incarnation = Incarnation(tmp_path / "run", None, TWO_SECTIONS)
    incarnation.worker.begin_round(None, "f32")
    two = finished_update(*UPDATE.sections, base=None)
    with pytest.raises(InvalidUpdate, match=r"sections: \['control', 'delta'\], expected \['delta'\]"):
        incarnation.worker.receive(*offered(two), 0.0)
    one = finished_update(UPDATE.sections[1], base=None)
    assert incarnation.worker.receive(*offered(one), 0.0) is None
    assert [grant.chunks for grant in incarnation.granted] == [tuple(range(6))]
    incarnation.end()
