"""The models of one process: fetched once for all its edges, over whichever connection is there."""

from __future__ import annotations

from collections.abc import Sequence

from fl_edge.messaging.model_store import FetchedModel, ModelStore, ModelUser
from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import model_publication
from tests.support.samples import DATA, MANIFEST

MODEL = model_publication([ModelSection("weights", MANIFEST, DATA)], 2**20)
TOPICS = set(MODEL.topics())
A, B, C = ModelUser("a", 1), ModelUser("b", 1), ModelUser("c")


class FakeConnection:
    """What a connection is subscribed to."""

    def __init__(self) -> None:
        self.topics: set[t.Topic] = set()
        self.requests = 0
        self.receiving_at: float | None = None

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        self.requests += bool(subscribe)
        self.topics -= set(unsubscribe)
        self.topics |= set(subscribe)


class Fixture:
    def __init__(self, *online: str) -> None:
        self.connections = {client: FakeConnection() for client in online}
        self.done: list[tuple[ModelUser, bool, str]] = []
        self.overdue: list[str] = []
        self.store = ModelStore(self.connections.get, self._done, self.overdue.append)

    def _done(self, holder: ModelUser, digest: str, model: FetchedModel | None, why: str) -> None:
        assert digest == MODEL.digest
        self.done.append((holder, model is not None, why))

    def fetch(self, holder: ModelUser, now: float = 0.0, patience: float = 60.0) -> None:
        self.store.fetch(holder, MODEL.digest, now, patience)

    def deliver(self) -> None:
        for index in range(MODEL.chunks):
            chunk = MODEL.chunk(index, run="R", incarnation=1, seq=0)
            self.store.receive(t.ChunkTopic(MODEL.digest[:12], index), codec.encode(chunk), 1.0)
        manifest = MODEL.manifest(run="R", incarnation=1, seq=0)
        self.store.receive(t.ManifestTopic(MODEL.digest[:12]), codec.encode(manifest), 1.0)

    def held(self, holder: ModelUser) -> FetchedModel | None:
        return self.store.get(holder, MODEL.digest)


def test_one_download_serves_all_who_wait_and_those_who_come_later() -> None:
    fleet = Fixture("a", "b", "c")
    fleet.fetch(A)
    fleet.fetch(B)
    assert [client for client, connection in fleet.connections.items() if connection.topics] == ["a"]
    assert fleet.connections["a"].topics == TOPICS
    fleet.deliver()
    fleet.fetch(C)
    assert fleet.done == [(A, True, ""), (B, True, ""), (C, True, "")]
    assert not any(connection.topics for connection in fleet.connections.values()), "nothing stays subscribed"
    assert fleet.held(A) is fleet.held(B) is fleet.held(C)


def test_a_model_is_kept_no_longer_than_it_is_held() -> None:
    fleet = Fixture("a", "b")
    fleet.fetch(A)
    fleet.deliver()
    fleet.store.release(A, MODEL.digest)
    assert fleet.held(A) is None
    fleet.fetch(B)
    assert fleet.connections["b"].topics == TOPICS, "it is fetched again"


def test_a_released_fetch_is_given_up_without_a_word() -> None:
    fleet = Fixture("a")
    fleet.fetch(A)
    fleet.store.release(A, MODEL.digest)
    assert fleet.connections["a"].topics == set()
    fleet.deliver()
    assert fleet.done == []
    assert fleet.store.due() is None


def test_a_download_moves_to_another_connection_when_its_own_is_lost() -> None:
    fleet = Fixture("a", "b")
    fleet.fetch(A)
    fleet.fetch(B)
    del fleet.connections["a"]
    fleet.store.connection_lost("a", 1.0)
    assert fleet.connections["b"].topics == TOPICS
    fleet.deliver()
    assert fleet.done == [(A, True, ""), (B, True, "")]


def test_without_any_connection_it_waits_for_one() -> None:
    fleet = Fixture()
    fleet.fetch(A)
    assert fleet.store.due() is not None
    fleet.connections["a"] = FakeConnection()
    fleet.store.connection_established(2.0)
    assert fleet.connections["a"].topics == TOPICS


def test_patience_ends_for_each_holder_alone() -> None:
    fleet = Fixture("a", "b")
    fleet.fetch(A, patience=5)
    fleet.fetch(B, patience=60)
    due = fleet.store.due()
    assert due is not None
    assert due <= 5
    fleet.store.advance(5.0)
    assert fleet.done == [(A, False, "the model did not arrive in time: its manifest has not arrived")]
    fleet.deliver()
    assert fleet.done[1:] == [(B, True, "")]


def test_what_does_not_come_is_asked_for_again() -> None:
    fleet = Fixture("a")
    fleet.fetch(A)
    asked: list[tuple[Sequence[t.Topic], Sequence[t.Topic]]] = []
    fleet.connections["a"].change_subscriptions = lambda subscribe, unsubscribe: asked.append(  # type: ignore[method-assign]
        (subscribe, unsubscribe)
    )
    fleet.store.advance(4.9)
    assert asked == []
    fleet.store.advance(5.0)
    assert [(set(subscribe), set(unsubscribe)) for subscribe, unsubscribe in asked] == [(TOPICS, TOPICS)]


def test_what_is_still_coming_is_not_asked_for_again() -> None:
    """A chunk of 200 kB takes 25 s over 64 kbit/s; when its bytes stop for 5 s, it is asked for again."""
    fixture = Fixture("a")
    fixture.fetch(A)
    connection = fixture.connections["a"]
    for second in range(1, 26):
        connection.receiving_at = second - 0.1
        fixture.store.advance(float(second))
        assert connection.requests == 1
    fixture.store.advance(29.0)
    assert connection.requests == 1
    fixture.store.advance(30.0)
    assert connection.requests == 2
    assert fixture.overdue == ["a"]


def test_a_cleared_topic_ends_the_fetch() -> None:
    fleet = Fixture("a")
    fleet.fetch(A)
    fleet.store.receive(t.ManifestTopic(MODEL.digest[:12]), b"", 1.0)
    assert fleet.done == [(A, False, "it was superseded by a newer version")]
    assert fleet.connections["a"].topics == set()


def test_garbage_is_counted_and_told() -> None:
    fleet = Fixture("a")
    fleet.fetch(A)
    for _ in range(16):
        assert fleet.done == []
        assert "not msgpack" in str(fleet.store.receive(t.ManifestTopic(MODEL.digest[:12]), b"\xc1", 1.0))
    assert fleet.done[0][:2] == (A, False)


def test_the_edge_whose_connection_delivers_nothing_is_named() -> None:
    fleet = Fixture("a", "b")
    fleet.fetch(A)
    fleet.fetch(B)
    fleet.store.advance(4.9)
    assert fleet.overdue == []
    fleet.store.advance(5.0)
    assert fleet.overdue == ["a"]


def test_an_object_without_the_section_that_is_needed_is_no_companion() -> None:
    fleet = Fixture("a")
    fleet.store.fetch(A, MODEL.digest, 0.0, 60.0, "control")
    fleet.deliver()
    assert fleet.held(A) is None, "it has the section weights"


def test_a_companion_is_fetched_like_a_model() -> None:
    control = model_publication([ModelSection("control", MANIFEST, DATA)], 2**20, needed="control")
    found: list[FetchedModel | None] = []
    connection = FakeConnection()
    store = ModelStore(lambda _: connection, lambda _u, _d, model, _r: found.append(model), lambda _: None)
    store.fetch(A, control.digest, 0.0, 60.0, "control")
    for index in range(control.chunks):
        chunk = control.chunk(index, run="R", incarnation=1, seq=0)
        store.receive(t.ChunkTopic(control.digest[:12], index), codec.encode(chunk), 1.0)
    manifest = control.manifest(run="R", incarnation=1, seq=0)
    store.receive(t.ManifestTopic(control.digest[:12]), codec.encode(manifest), 1.0)
    [model] = found
    assert model is not None
    assert (model.name, bytes(model.weights_memory.view)) == ("control", DATA)
