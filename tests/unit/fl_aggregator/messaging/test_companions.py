"""The vectors that edges need besides a model are objects of their own, and go with the next version."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.publisher import ModelPublisher
from fl_aggregator.storage.checkpoint import Model
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.manifest import manifest_of

MANIFEST = manifest_of({"a": np.zeros(4)})


def model(value: float, section: str = "weights") -> Model:
    return Model.of(MANIFEST, np.full(4, value, np.float32), section)


class Broker:
    """What is retained."""

    maximum_packet_size = 2**20

    def __init__(self) -> None:
        self.retained: dict[t.Topic, Callable[[], m.Message]] = {}

    def retain(self, topic: t.Topic, message: m.Message) -> None:
        self.retained[topic] = lambda: message

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        self.retained[topic] = make

    def clear(self, topic: t.Topic) -> None:
        del self.retained[topic]

    def objects(self) -> dict[str, list[str]]:
        """The sections of each object at the broker, by the beginning of its digest."""
        found = {}
        for topic, make in self.retained.items():
            if isinstance(topic, t.ManifestTopic):
                message = make()
                assert isinstance(message, m.ModelManifest)
                found[topic.digest12] = [section.name for section in message.sections]
        return found


def publish(publisher: ModelPublisher, version: int, control: float | None) -> None:
    weights = model(version)
    companions = {} if control is None else {"control": model(control, "control")}
    reference = m.ModelReference(version=version, digest=weights.digest)
    previous = model(version - 1) if version else None
    publisher.publish(version, reference, weights, None, previous, companions=companions)


def test_5_15_they_lie_beside_the_model_until_the_next_version() -> None:
    broker = Broker()
    publisher = ModelPublisher(cast(Connections, broker), EnvelopeSource("R", 1), "digits", 2**20)
    publish(publisher, 0, None)
    publish(publisher, 1, 0.5)
    publish(publisher, 2, 0.75)
    assert broker.objects() == {
        model(1).digest[:12]: ["weights"],
        model(2).digest[:12]: ["weights"],
        model(0.75, "control").digest[:12]: ["control"],
    }
    publish(publisher, 3, 0.75)
    assert model(0.75, "control").digest[:12] in broker.objects(), "the same vector again is not cleared"
    assert len(broker.objects()) == 3


def test_the_digest_of_a_companion_is_not_that_of_a_model_with_the_same_values() -> None:
    assert model(1.0).digest != model(1.0, "control").digest
