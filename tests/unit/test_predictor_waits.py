"""How long a request waits for a newer model, however long that takes to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fl_edge.models import Model, ModelStore
from fl_edge.predictor import GHOST_AFTER, Answer, Predictor
from fl_edge.quota import Quota
from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.publication import ModelSection, Publication, publication
from tests.support.samples import DATA, MANIFEST

MODELS = [publication([ModelSection("weights", MANIFEST, DATA[:-1] + bytes([n]))], 2**20) for n in range(3)]

GHOST = int(GHOST_AFTER) + 2


class Line:
    """A connection that keeps what is sent on it."""

    def __init__(self) -> None:
        self.sent: list[m.Prediction] = []

    def ask(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        pass

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        pass

    def publish(self, _topic: str, payload: bytes, **_: Any) -> None:
        message = codec.decode(t.PredictionsTopic(), payload)
        assert isinstance(message, m.Prediction)
        self.sent.append(message)


class Stage:
    """A predictor with its store; predictions are made at once."""

    def __init__(self) -> None:
        self.line = Line()
        self.now = 0.0
        self.jobs = 0
        self.store = ModelStore(lambda _: self.line, self._fetched)
        connect = cast(Any, lambda: self.line)
        self.predictor = Predictor("7", "fl", self.store, self, connect, 0, Quota(0.0), "predictors")

    def predict(self, *_: object) -> int:
        self.jobs += 1
        return self.jobs

    def _fetched(self, _holder: object, digest: str, model: Model | None, why: str) -> None:
        self.predictor.fetched(digest, model, why, self.now)

    def announce(self, version: int) -> None:
        model = MODELS[version]
        announced = m.ModelAnnouncement(
            run="R", epoch=1, seq=0, task="digits", round=version, version=version, digest=model.digest,
            chunks=model.chunks, size=model.size,
        )  # fmt: skip
        self.predictor.announced(announced, self.now)

    def deliver(self, model: Publication) -> None:
        short = model.digest[:12]
        chunk = codec.encode(model.chunk(0, run="R", epoch=1, seq=0))
        manifest = codec.encode(model.manifest(run="R", epoch=1, seq=0))
        self.store.take(t.ChunkTopic(short, 0), chunk, self.now)
        self.store.take(t.ManifestTopic(short), manifest, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.store.advance(self.now)
        self.predictor.advance(self.now)

    def ask(self) -> None:
        self.predictor.asked(mqtt.Received("fl/predict", b"?", retain=False, qos=1), self.now)

    def versions(self) -> list[int]:
        """Of the answers, once all jobs that were started are done."""
        for job in range(1, self.jobs + 1):
            self.predictor.predicted(job, Answer(probabilities={"7": 1.0}))
        return [message.version for message in self.line.sent]


def test_a_request_waits_for_a_newer_model_but_not_for_long() -> None:
    stage = Stage()
    stage.announce(0)
    stage.deliver(MODELS[0])
    stage.ask()
    assert stage.versions() == [0]
    stage.announce(1)
    stage.ask()
    stage.wait(4.9)
    assert stage.versions() == [0], "it waits for version 1"
    stage.wait(0.2)
    assert stage.versions() == [0, 0]
    stage.ask()
    assert stage.versions() == [0, 0, 0], "it is known to take long"


def test_a_large_model_is_not_begun_anew_for_each_request() -> None:
    stage = Stage()
    stage.announce(0)
    stage.deliver(MODELS[0])
    stage.announce(1)
    stage.ask()
    stage.wait(300)
    stage.deliver(MODELS[1])
    stage.ask()
    assert stage.versions() == [0, 1]


def test_requests_that_wait_get_the_newer_model_when_it_comes() -> None:
    stage = Stage()
    stage.announce(0)
    stage.deliver(MODELS[0])
    stage.announce(2)
    stage.ask()
    stage.wait(2)
    stage.deliver(MODELS[2])
    assert stage.versions() == [2]


def test_a_first_model_that_does_not_come_is_tried_again() -> None:
    stage = Stage()
    stage.announce(0)
    stage.wait(600)
    stage.ask()
    stage.wait(14)
    stage.deliver(MODELS[0])
    assert stage.versions() == [], "nobody waits for it"
    stage.wait(2)
    stage.deliver(MODELS[0])
    stage.ask()
    assert stage.versions() == [0]


def test_a_model_that_does_not_come_gives_way_to_one_that_was_announced_later() -> None:
    """Announced by mistake or malice and never there: it must not keep the others away."""
    stage = Stage()
    stage.announce(0)
    stage.wait(1)
    stage.announce(1)
    for _ in range(GHOST):
        stage.wait(1)
    stage.deliver(MODELS[1])
    stage.ask()
    assert stage.versions() == [1]
    stage.announce(2)
    stage.ask()
    stage.announce(0)
    for _ in range(GHOST):
        stage.wait(1)
    stage.deliver(MODELS[0])
    stage.ask()
    assert stage.versions() == [1, 1, 0]


def test_a_model_that_comes_slowly_is_not_given_up_for_a_newer_one() -> None:
    """Else an edge on a slow link would never have any, where versions follow fast."""
    section = ModelSection("weights", MANIFEST, DATA)
    slow = publication([section], 1)
    stage = Stage()
    stage.predictor.announced(
        m.ModelAnnouncement(
            run="R", epoch=1, seq=0, task="digits", round=3, version=3, digest=slow.digest,
            chunks=slow.chunks, size=slow.size,
        ),
        stage.now,
    )  # fmt: skip
    manifest = codec.encode(slow.manifest(run="R", epoch=1, seq=0))
    stage.store.take(t.ManifestTopic(slow.digest[:12]), manifest, stage.now)
    for index in range(slow.chunks):
        stage.announce(index % 3)
        for _ in range(GHOST - 3):
            stage.wait(1)
        chunk = codec.encode(slow.chunk(index, run="R", epoch=1, seq=0))
        stage.store.take(t.ChunkTopic(slow.digest[:12], index), chunk, stage.now)
    stage.ask()
    stage.wait(6)
    assert stage.versions() == [3]
