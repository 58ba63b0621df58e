"""What the aggregator keeps retained: models as chunks, the announcement of the newest version, the open round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fl_aggregator.links import Links
from fl_aggregator.storage.checkpoint import Model
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import Scope
from fl_shared.tensors import sections
from fl_shared.transfer import publication as pub

MIN_CHUNK: Final = 2**10
CHUNK_HEAD: Final = 2**10
"""Bytes for a chunk's topic, envelope, digest and checksum."""
MODELS_RETAINED: Final = 2
"""The newest, on which the open round builds, and the one before, which may still be under evaluation."""


class Publications:
    """Publishes through ``links``, and clears what is superseded."""

    def __init__(self, links: Links, scope: Scope, task: str, chunk_size: int) -> None:
        self._links = links
        self._scope = scope
        self._task = task
        self._chunk_size = chunk_size
        self._models: dict[str, pub.Publication] = {}
        self._work: Sequence[str] = ()

    def publish(
        self,
        round_number: int,
        reference: m.ModelReference,
        model: Model,
        evaluate: m.Split | None,
        previous: Model | None = None,
    ) -> None:
        """A version: its chunks and manifest first, then the announcement that names them.

        ``previous`` is the version before, which stays retained, as it is kept from now on.
        """
        scope = self._scope
        publication = self._publication(model, self._fitting_chunk())
        self._models.pop(model.digest, None)
        self._models[model.digest] = publication
        if previous is not None and previous.digest in self._models:
            before = self._models[previous.digest]
            self._models[previous.digest] = self._publication(previous, before.chunk_size)
        for topic in publication.topics():
            self._links.retain_made(topic, self._maker(model.digest, topic))
        announcement = m.ModelAnnouncement(
            **scope.envelope(),
            task=self._task,
            round=round_number,
            version=reference.version,
            digest=model.digest,
            chunks=publication.chunks,
            size=publication.size,
            evaluate=evaluate,
        )
        self._links.retain(t.ModelTopic(), announcement)
        for digest in list(self._models)[:-MODELS_RETAINED]:
            for topic in self._models.pop(digest).topics():
                self._links.clear(topic)

    def _publication(self, model: Model, chunk_size: int) -> pub.Publication:
        weights = sections.ModelSection("weights", model.manifest, model.data)
        return pub.publication([weights], chunk_size, model.digest)

    def _maker(self, digest: str, topic: t.ManifestTopic | t.ChunkTopic) -> Callable[[], m.Message]:
        envelope = self._scope.envelope()  # once: said again, it is the same message

        def make() -> m.Message:
            publication = self._models[digest]
            if isinstance(topic, t.ChunkTopic):
                return publication.chunk(topic.index, **envelope)
            return publication.manifest(**envelope)

        return make

    def _fitting_chunk(self) -> int:
        """As large as wanted, and as the broker takes with all that stands around it."""
        return max(MIN_CHUNK, min(self._chunk_size, self._links.maximum_packet_size - CHUNK_HEAD))

    def announce(self, selected: m.Selected, cohort: Sequence[str]) -> None:
        """Opens a round, or calls more edges into it. A large cohort is told edge by edge."""
        self._links.retain(t.SelectedTopic(selected.round), selected)
        if selected.cohort is None:
            for client in cohort[len(self._work) :]:
                self._links.retain(t.WorkTopic(client), selected)
            self._work = cohort

    def withdraw(self, round_number: int) -> None:
        """Clears what is retained of a round that has ended."""
        self._links.clear(t.SelectedTopic(round_number))
        self._links.clear(t.MissingTopic(round_number))
        for client in self._work:
            self._links.clear(t.WorkTopic(client))
        self._work = ()
