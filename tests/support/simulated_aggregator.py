"""An aggregator under the control of a test, on a real broker."""

from __future__ import annotations

from typing import Any

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import WEIGHTS, ModelSection
from fl_shared.transfer.publication import ModelPublication
from tests.support.builders import fold_settings, partition, training_request
from tests.support.client import Client, Endpoint

RUN = "testrun"
TRAINING = training_request()
FOLD = fold_settings(max_examples=1_000_000, scale_bits=30)


class SimulatedAggregator(Client):
    """A simulated aggregator; receives everything under the prefix, or what ``filters`` match below it."""

    def __init__(
        self, endpoint: Endpoint, prefix: str, *filters: str, incarnation: int = 1, task: str = "digits"
    ) -> None:
        self.task = task
        self.incarnation = incarnation
        self._seq = 0
        super().__init__(
            endpoint, *(f"{prefix}/{name}" for name in filters or "#"), prefix=prefix, reconnect=True
        )

    def envelope(self) -> dict[str, Any]:
        self._seq += 1
        return {"run": RUN, "incarnation": self.incarnation, "seq": self._seq}

    def clear(self, topic: t.Topic) -> None:
        """Clears the retained message of a topic."""
        self.send(topic, b"", retain=True)

    def admit(self, to: m.Registration, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "task": self.task,
            "partition": partition(),
            "examples": to.examples,
            **changes,
        }
        reply = m.Admitted(**self.envelope(), client=to.client, session=to.session, **fields)
        self.send(t.RepliesTopic(to.client), reply)

    def admit_fully(self, client: str, index: int = 0, *, masked: bool = False) -> m.Registration:
        """Answers both registrations of a training edge; returns the second one."""
        part = partition(index)
        first = self.expect(m.Registration, 30, client=client, run=None)
        self.admit(first, partition=part, masked=masked)
        second = self.expect(m.Registration, 60, client=client, run=RUN)
        self.admit(second, partition=part, masked=masked)
        return second

    def select(
        self, number: int, cohort: tuple[str, ...], base: m.ModelReference | None, **changes: Any
    ) -> None:
        fields: dict[str, Any] = {
            "seconds_left": 60.0,
            "training": TRAINING,
            "fold": FOLD,
            "encoding": "f32",
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
        self, model: ModelPublication, version: int, evaluate: m.Split | None = None
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
        """Requests a prediction, of client ``of`` or of any."""
        self.send(t.PredictTopic(of), payload, **properties)


def collect(
    aggregator: SimulatedAggregator, offer: m.Offer, have: dict[int, bytes], most: int, timeout: float = 30.0
) -> None:
    """Grants at most ``most`` of the chunks that are not in ``have``, and stores them there."""
    missing = tuple(i for i in range(offer.chunks) if i not in have)[:most]
    aggregator.grant(offer, missing)
    for _ in missing:
        part = aggregator.expect(m.UpdateChunk, timeout, client=offer.client, digest=offer.digest)
        assert part.index in missing, "it was not granted"
        assert part.index not in have, "it was granted once"
        have[part.index] = part.data


def first_model(update: m.Update) -> tuple[ModelSection, ...]:
    """Version 0, which the update of round 0 makes."""
    (section,) = update.sections
    assert section.arrays is not None
    return (ModelSection(WEIGHTS, Manifest(arrays=section.arrays), section.data, section.encoding),)


def retain_birth(endpoint: Endpoint, prefix: str = "fl", run: str = "ghost") -> None:
    """Retains the birth of an aggregator that does not live."""
    birth = m.AggregatorPresence(state="online", session="x", run=run, incarnation=1)
    with Client(endpoint, prefix=prefix) as client:
        assert client.publish(t.AggregatorTopic(), birth, retain=True) < 0x80
