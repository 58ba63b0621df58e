"""How long a request waits for a newer model, however long that takes to come."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from fl_edge.messaging.model_store import FetchedModel, ModelStore
from fl_edge.prediction import rate_limit
from fl_edge.prediction.newest_model import ADVANCE_INTERVAL, FETCH_RETRY_DELAY, STALLED_FETCH_TIMEOUT
from fl_edge.prediction.predictor import (
    MAX_PENDING_PER_ASKER,
    MAX_PENDING_REQUESTS,
    Answer,
    Predictor,
    Started,
)
from fl_edge.prediction.rate_limit import PredictionRateLimiter
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import ModelPublication, model_publication
from tests.support.samples import DATA, MANIFEST

MODELS = [
    model_publication([ModelSection("weights", MANIFEST, DATA[:-1] + bytes([n]))], 2**20) for n in range(3)
]

OVERDUE = int(STALLED_FETCH_TIMEOUT) + 2


class FakeConnection:
    """A connection that keeps what is sent on it."""

    def __init__(self) -> None:
        self.sent: list[m.Prediction] = []
        self.cleared: list[str] = []
        self.subscribed: list[str] = []

    receiving_at: float | None = None

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        pass

    def subscribe(self, filters: Sequence[tuple[str, int]], **_: Any) -> None:
        self.subscribed = [name for name, _qos in filters]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **_: Any) -> None:
        if retain:
            assert not payload
            self.cleared.append(topic)
            return
        message = codec.decode(t.PredictionsTopic(), payload)
        assert isinstance(message, m.Prediction)
        self.sent.append(message)


class Setup:
    """A predictor with its store; predictions are made at once."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.now = 0.0
        self.jobs = 0
        self.work = 0.0
        self.store = ModelStore(lambda _: self.connection, self._fetched, lambda _: None)
        connect = cast(Any, lambda: self.connection)
        self.predictor = Predictor(
            "7", "fl", self.store, self, connect, 0, PredictionRateLimiter(0.0), "predictors"
        )

    def predict(self, *_: object, **__: object) -> Started:
        self.jobs += 1
        return Started(self.jobs, personal=False, personal_part=False)

    def _fetched(self, _holder: object, digest: str, model: FetchedModel | None, why: str) -> None:
        self.predictor.model_fetched(digest, model, why, self.now)

    def announce(self, version: int) -> None:
        model = MODELS[version]
        announced = m.ModelAnnouncement(
            run="R", incarnation=1, seq=0, task="digits", round=version, version=version, digest=model.digest,
            chunks=model.chunks, size=model.size,
        )  # fmt: skip
        self.predictor.model_announced(announced, self.now)

    def deliver(self, model: ModelPublication) -> None:
        short = model.digest[:12]
        chunk = codec.encode(model.chunk(0, run="R", incarnation=1, seq=0))
        manifest = codec.encode(model.manifest(run="R", incarnation=1, seq=0))
        self.store.receive(t.ChunkTopic(short, 0), chunk, self.now)
        self.store.receive(t.ManifestTopic(short), manifest, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.store.advance(self.now)
        self.predictor.advance(self.now)

    def ask(self, asker: str | None = None) -> None:
        request = mqtt.Received("fl/predict", b"?", retain=False, qos=1, response_topic=asker)
        self.predictor.request_received(request, self.now)

    def ask_with_properties(self, size: int) -> None:
        request = mqtt.Received("fl/predict", b"?", retain=False, qos=1, packet_size=size)
        self.predictor.request_received(request, self.now)

    def versions(self) -> list[int]:
        """Of the answers, once all jobs that were started are done."""
        for job in range(1, self.jobs + 1):
            self.predictor.prediction_done(
                job, Answer({"label": "7", "probabilities": {"7": 1.0}}), self.work, self.now
            )
        return [message.version for message in self.connection.sent]


def test_a_request_waits_for_a_newer_model_but_not_for_long() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    setup.ask()
    assert setup.versions() == [0]
    setup.announce(1)
    setup.ask()
    setup.wait(4.9)
    assert setup.versions() == [0], "it waits for version 1"
    setup.wait(0.2)
    assert setup.versions() == [0, 0]
    setup.ask()
    assert setup.versions() == [0, 0, 0], "it is known to take long"


def test_without_shared_subscriptions_it_is_asked_by_name_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    setup.predictor.connected(shared_subscriptions=True)
    assert sorted(setup.connection.subscribed) == ["$share/predictors/fl/predict", "fl/predict/7"]
    assert "shared" not in caplog.text
    setup.predictor.connected(shared_subscriptions=False)
    assert setup.connection.subscribed == ["fl/predict/7"]
    assert "answers only prediction requests on fl/predict/7" in caplog.text


def test_a_request_counts_with_all_its_properties() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    for _ in range(10):
        setup.ask_with_properties(64 * 2**20)
    assert setup.jobs == rate_limit.BYTE_RATE.burst // (64 * 2**20)
    assert setup.connection.sent[0].error is not None
    assert "bytes per second" in setup.connection.sent[0].error


def test_requests_are_charged_with_the_work_that_they_cost() -> None:
    """A bomb of a few KiB counts as much as the hundreds of requests that take as long."""
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    setup.work = rate_limit.WORK_RATE_PER_ASKER.burst + 1
    setup.ask("bomber")
    setup.versions()
    setup.work = 0.0
    setup.ask("bomber")
    assert setup.jobs == 1
    assert setup.connection.sent[-1].error is not None
    assert "0.5 s of work per second with one response topic" in setup.connection.sent[-1].error
    setup.ask("modest")
    assert setup.jobs == 2
    setup.now += 1 / rate_limit.WORK_RATE_PER_ASKER.per_second
    setup.ask("bomber")
    assert setup.jobs == 3, "time has made up for it"


def test_one_asker_does_not_take_all_the_room() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    for _ in range(MAX_PENDING_REQUESTS):
        setup.ask("greedy")
    assert setup.jobs == MAX_PENDING_PER_ASKER
    assert {message.error for message in setup.connection.sent} == {"busy; try again"}
    setup.ask("modest")
    setup.ask()
    assert setup.jobs == MAX_PENDING_PER_ASKER + 2


def test_retained_requests_are_cleared_and_not_obeyed() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])

    def take(topic: str, payload: bytes) -> None:
        setup.predictor.request_received(mqtt.Received(topic, payload, retain=True, qos=1), setup.now)

    for _ in range(500):  # more than are answered
        take("fl/predict/7", b"old")
    take("fl/predict", b"old")
    take("fl/predict/8", b"not ours")
    setup.wait(1)
    assert setup.connection.cleared == ["fl/predict", "fl/predict/7"]
    assert setup.jobs == 0
    assert setup.connection.sent[0].error is not None
    assert "is retained" in setup.connection.sent[0].error
    answers = len(setup.connection.sent)
    take("fl/predict/7", b"")  # the clearing itself comes back
    setup.wait(1)
    assert len(setup.connection.cleared) == 2
    assert len(setup.connection.sent) == answers


def test_answers_are_logged_at_powers_of_ten(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    with caplog.at_level("INFO"):
        for _ in range(12):
            setup.ask()
            setup.versions()
    lines = [record.getMessage() for record in caplog.records if "answered" in record.getMessage()]
    assert lines == [f"answered a prediction request ({n} so far) with version 0: 7" for n in (1, 10)]


def test_a_large_model_is_not_begun_anew_for_each_request() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    setup.announce(1)
    setup.ask()
    setup.wait(300)
    setup.deliver(MODELS[1])
    setup.ask()
    assert setup.versions() == [0, 1]


def test_requests_that_wait_get_the_newer_model_when_it_comes() -> None:
    setup = Setup()
    setup.announce(0)
    setup.deliver(MODELS[0])
    setup.announce(2)
    setup.ask()
    setup.wait(2)
    setup.deliver(MODELS[2])
    assert setup.versions() == [2]


def test_a_first_model_that_does_not_come_is_tried_again() -> None:
    setup = Setup()
    setup.announce(0)
    setup.wait(600)
    setup.ask()
    setup.wait(14)
    setup.deliver(MODELS[0])
    assert setup.versions() == [], "nobody waits for it"
    setup.wait(2)
    setup.deliver(MODELS[0])
    setup.ask()
    assert setup.versions() == [0]


def test_a_model_that_does_not_come_gives_way_to_one_that_was_announced_later() -> None:
    """Announced by mistake or malice and never there: it must not keep the others away."""
    setup = Setup()
    setup.announce(0)
    setup.wait(1)
    setup.announce(1)
    for _ in range(OVERDUE):
        setup.wait(1)
    setup.deliver(MODELS[1])
    setup.ask()
    assert setup.versions() == [1]
    setup.announce(2)
    setup.ask()
    setup.announce(0)
    for _ in range(OVERDUE):
        setup.wait(1)
    setup.deliver(MODELS[0])
    setup.ask()
    assert setup.versions() == [1, 1, 0]


def test_a_model_that_comes_slowly_is_not_given_up_for_a_newer_one() -> None:
    """Else an edge on a slow link would never have any, where versions follow fast."""
    section = ModelSection("weights", MANIFEST, DATA)
    slow = model_publication([section], 1)
    setup = Setup()
    setup.predictor.model_announced(
        m.ModelAnnouncement(
            run="R", incarnation=1, seq=0, task="digits", round=3, version=3, digest=slow.digest,
            chunks=slow.chunks, size=slow.size,
        ),
        setup.now,
    )  # fmt: skip
    manifest = codec.encode(slow.manifest(run="R", incarnation=1, seq=0))
    setup.store.receive(t.ManifestTopic(slow.digest[:12]), manifest, setup.now)
    for index in range(slow.chunks):
        setup.announce(index % 3)
        for _ in range(OVERDUE - 3):
            setup.wait(1)
        chunk = codec.encode(slow.chunk(index, run="R", incarnation=1, seq=0))
        setup.store.receive(t.ChunkTopic(slow.digest[:12], index), chunk, setup.now)
    setup.ask()
    setup.wait(6)
    assert setup.versions() == [3]


def test_it_waits_for_no_time_unless_it_fetches_or_has_failed_to() -> None:
    setup = Setup()
    assert setup.predictor.due(setup.now) == math.inf
    setup.announce(0)
    assert setup.predictor.due(setup.now) == setup.now + ADVANCE_INTERVAL
    setup.wait(600)
    assert setup.predictor.due(setup.now) == setup.now + FETCH_RETRY_DELAY, "it did not come"
    setup.wait(FETCH_RETRY_DELAY)
    setup.deliver(MODELS[0])
    assert setup.predictor.due(setup.now) == math.inf
