"""What an aggregator says to edges and hears from them, over a real broker: the test decides what and when."""

from __future__ import annotations

import queue
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.broker_url import BrokerAddress
from fl_shared.transfer import ModelSection, Publication

RUN = "testrun"
TRAINING = m.TrainingSettings(epochs=2, batch_size=32, lr=0.05, momentum=0.9, seed=0)
FOLD = m.FoldSettings(max_examples=1_000_000, max_delta=100.0, scale_bits=30)
M = TypeVar("M", bound=m.Message)


class SimulatedAggregator:
    """One connection to the broker that hears everything under the prefix, in the order in which it comes.

    Or, with ``hears``, only what those filters match (below the prefix).
    """

    def __init__(
        self,
        network: mqtt.Network,
        address: BrokerAddress,
        prefix: str,
        *,
        epoch: int = 1,
        task: str = "digits",
        hears: tuple[str, ...] = ("#",),
    ) -> None:
        self.prefix = prefix
        self.task = task
        self.epoch = epoch
        self.heard: list[tuple[t.Topic, m.Message | None, mqtt.Received]] = []
        self._seq = 0
        self._inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
        settings = mqtt.ConnectionSettings(address, keepalive=30, max_queued=5000, max_queued_bytes=2**30)
        self.connection = network.connect(settings, self._inbox.put)
        self.connection.wait_connected(10)
        self.connection.subscribe([(f"{prefix}/{name}", 1) for name in hears])
        self._until(lambda event: isinstance(event, mqtt.Subscribed), 5)

    # --- hearing ------------------------------------------------------------------------------------------

    def expect(self, kind: type[M], timeout: float = 20.0, **wanted: Any) -> M:
        """The first message of this kind, with these members, that has not been taken by `expect` before."""
        return self.expect_with_topic(kind, timeout, **wanted)[1]

    def expect_with_topic(
        self, kind: type[M], timeout: float = 20.0, **wanted: Any
    ) -> tuple[mqtt.Received, M]:
        deadline = time.monotonic() + timeout
        while True:
            for index, (_, message, received) in enumerate(self.heard):
                if isinstance(message, kind) and all(getattr(message, k) == v for k, v in wanted.items()):
                    del self.heard[index]
                    return received, message
            left = deadline - time.monotonic()
            if left <= 0 or not self._listen(left):
                seen = [type(message).__name__ for _, message, _ in self.heard]
                raise AssertionError(f"no {kind.__name__} {wanted} within {timeout} s; there were {seen}")

    def silence(self, kind: type[m.Message], seconds: float) -> None:
        """No message of this kind comes for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._listen(left)
        assert not [message for _, message, _ in self.heard if isinstance(message, kind)]

    def _listen(self, timeout: float) -> bool:
        try:
            event = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return False
        if isinstance(event, mqtt.Received):
            topic = t.parse(self.prefix, event.topic)
            if topic is not None:
                try:
                    message = codec.decode(topic, event.payload) if event.payload else None
                except codec.DecodeError:
                    message = None
                self.heard.append((topic, message, event))
        return True

    def _until(self, is_it: Callable[[mqtt.Event], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not is_it(self._inbox.get(timeout=max(0.01, deadline - time.monotonic()))):
            pass

    # --- saying -------------------------------------------------------------------------------------------

    def envelope(self) -> dict[str, Any]:
        self._seq += 1
        return {"run": RUN, "epoch": self.epoch, "seq": self._seq}

    def send(self, topic: t.Topic, message: m.Message, *, retain: bool = False) -> None:
        assert self.connection.publish(t.build(self.prefix, topic), codec.encode(message), retain=retain)

    def clear(self, topic: t.Topic) -> None:
        assert self.connection.publish(t.build(self.prefix, topic), b"", retain=True)

    def admit(self, to: m.Registration, **changes: Any) -> None:
        part = m.Partition(index=0, count=20, scheme="iid", seed=0, holdout=0.2)
        fields: dict[str, Any] = {"task": self.task, "partition": part, "examples": to.examples, **changes}
        reply = m.Admitted(**self.envelope(), client=to.client, session=to.session, **fields)
        self.send(t.RepliesTopic(to.client), reply)

    def admit_fully(self, client: str, index: int = 0) -> m.Registration:
        """Both registrations of a training edge; gives the second one."""
        part = m.Partition(index=index, count=20, scheme="iid", seed=0, holdout=0.2)
        self.admit(self.expect(m.Registration, 30, client=client, run=None), partition=part)
        second = self.expect(m.Registration, 60, client=client, run=RUN)
        self.admit(second, partition=part)
        return second

    def select(
        self, number: int, cohort: tuple[str, ...], base: m.ModelReference | None, **changes: Any
    ) -> None:
        fields: dict[str, Any] = {
            "seconds_left": 60.0,
            "training": TRAINING,
            "fold": FOLD,
            "inline_limit": 10_000_000,
            **changes,
        }
        selected = m.Selected(
            **self.envelope(), round=number, task=self.task, cohort=cohort, base=base, **fields
        )
        self.send(t.SelectedTopic(number), selected, retain=True)

    def grant(self, offer: m.Offer, chunks: tuple[int, ...]) -> None:
        reply = m.Grant(
            **self.envelope(),
            client=offer.client,
            session=offer.session,
            round=offer.round,
            digest=offer.digest,
            chunks=chunks,
        )
        self.send(t.RepliesTopic(offer.client), reply)

    def answer(self, update: m.Update | m.Offer) -> None:
        accepted = m.Accepted(
            **self.envelope(),
            client=update.client,
            session=update.session,
            round=update.round,
            digest=update.digest,
        )
        self.send(t.RepliesTopic(update.client), accepted)

    def publish_model(
        self, model: Publication, version: int, evaluate: m.Split | None = None
    ) -> m.ModelReference:
        for index in range(model.chunks):
            chunk = model.chunk(index, **self.envelope())
            self.send(t.ChunkTopic(model.digest[:12], index), chunk, retain=True)
        self.send(t.ManifestTopic(model.digest[:12]), model.manifest(**self.envelope()), retain=True)
        announced = m.ModelAnnouncement(
            **self.envelope(),
            task=self.task,
            round=version,
            version=version,
            digest=model.digest,
            chunks=model.chunks,
            size=model.size,
            evaluate=evaluate,
        )
        self.send(t.ModelTopic(), announced, retain=True)
        return m.ModelReference(version=version, digest=model.digest)

    def ask(self, payload: bytes, *, of: str | None = None, **properties: Any) -> None:
        topic = t.build(self.prefix, t.PredictTopic(of))
        assert self.connection.publish(topic, payload, **properties)


def collect(
    wire: SimulatedAggregator, offer: m.Offer, have: dict[int, bytes], most: int, timeout: float = 30.0
) -> None:
    """Asks for ``most`` of the chunks that are not in ``have``, and puts them there."""
    missing = tuple(i for i in range(offer.chunks) if i not in have)[:most]
    wire.grant(offer, missing)
    for _ in missing:
        part = wire.expect(m.UpdateChunk, timeout, client=offer.client, digest=offer.digest)
        assert part.crc32 == zlib.crc32(part.data)
        assert part.index in missing, "it was not granted"
        assert part.index not in have, "it was granted once"
        have[part.index] = part.data


def sections_of(update: m.Update) -> tuple[ModelSection, ...]:
    """The whole weights that an update of round 0 carries."""
    from fl_shared.tensors import Manifest

    return tuple(
        ModelSection(section.name, Manifest(arrays=section.arrays or ()), section.data)
        for section in update.sections
    )
