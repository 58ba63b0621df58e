"""The models that the edges of one process need: fetched once for all, kept as long as one holds them.

Whoever needs a model *holds* it under a name of its own; the download goes over the connection of one of the
holders, and moves to another one's when that connection breaks.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.sections import WEIGHTS, ModelSection
from fl_shared.transfer.download import ModelDownload

LOG = logging.getLogger(__name__)

REPORT_INTERVAL: Final = 10.0
"""Seconds between two lines on how a long download is getting on."""
TRANSPORT_RETRY_DELAY: Final = 1.0
"""Seconds until it is looked again for a connection to fetch over, where there is none."""


@dataclass(frozen=True, slots=True)
class ModelUser:
    """Job ``job`` of ``client``, or (``job`` null) its predictions."""

    client: str
    job: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FetchedModel:
    """A whole model; its bytes have this digest. ``memory``: all sections' data, one after the other."""

    digest: str
    sections: tuple[ModelSection, ...] = field(repr=False)
    memory: SharedBytes = field(repr=False)

    @property
    def weights(self) -> ModelSection:
        return next(section for section in self.sections if section.name == WEIGHTS)

    @property
    def weights_memory(self) -> SharedBytes:
        before = itertools.takewhile(lambda section: section.name != WEIGHTS, self.sections)
        return self.memory.slice(sum(len(section.data) for section in before), len(self.weights.data))


class Transport(Protocol):
    """A connection that a model can come over (`wire.EdgeConnection`)."""

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None: ...


FetchCallback = Callable[[ModelUser, str, FetchedModel | None, str], None]
"""Called once for each fetch that was not released: holder, digest, and the model, or null and why not."""


class _Buffer:
    """Where a download is put together. Not a part of `_Entry`: a cycle would keep large memory until it is found."""

    def __init__(self) -> None:
        self.memory = SharedBytes.new(0)

    def allocate(self, size: int) -> memoryview:
        self.memory = SharedBytes.new(size)
        return self.memory.view


class _Entry:
    """A model that somebody holds: here, or on its way."""

    def __init__(self, digest: str, now: float) -> None:
        self.buffer = _Buffer()
        self.download = ModelDownload(digest, allocate=self.buffer.allocate)
        self.model: FetchedModel | None = None
        self.users: set[ModelUser] = set()
        self.deadlines: dict[ModelUser, float] = {}
        """Those who still wait, and for how long."""
        self.transport_client: str | None = None
        self.report_at = now + REPORT_INTERVAL


class ModelStore:
    """``carrier_of`` gives the connection of a client, or null while it has none. Times are seconds."""

    def __init__(self, carrier_of: Callable[[str], Transport | None], done: FetchCallback) -> None:
        self._transport_of = carrier_of
        self._on_fetched = done
        self._entries: dict[str, _Entry] = {}
        self._retry_at = 0.0

    def fetch(self, holder: ModelUser, digest: str, now: float, patience: float) -> None:
        """Holds the model, and gets it if it is not here; ``done`` is called within ``patience``, or at once."""
        entry = self._entries.get(digest)
        if entry is None:
            entry = self._entries[digest] = _Entry(digest, now)
        entry.users.add(holder)
        if entry.model is not None:
            self._on_fetched(holder, digest, entry.model, "")
            return
        entry.deadlines[holder] = now + patience
        self._request_topics(entry, now)

    def get(self, holder: ModelUser, digest: str) -> FetchedModel | None:
        entry = self._entries.get(digest)
        return entry.model if entry is not None and holder in entry.users else None

    def progress(self, digest: str) -> str:
        """How far the fetch of a model has come, in words; empty if nobody fetches it."""
        entry = self._entries.get(digest)
        return "" if entry is None else entry.download.progress

    def release(self, holder: ModelUser, digest: str) -> None:
        """The holder needs it no more. A fetch of its own that is under way ends without ``done``."""
        entry = self._entries.get(digest)
        if entry is None:
            return
        entry.users.discard(holder)
        entry.deadlines.pop(holder, None)
        if not entry.users:
            self._drop(digest, entry)

    def receive(
        self, topic: t.ManifestTopic | t.ChunkTopic, payload: bytes | memoryview, now: float
    ) -> str | None:
        """What has come on one of a model's topics; gives why it was of no use, if it was not."""
        fault = None
        for digest, entry in list(self._entries.items()):
            if entry.model is not None or not digest.startswith(topic.digest12):
                continue
            if not payload:
                entry.download.cleared()
            else:
                try:
                    message = codec.decode(topic, payload)
                except codec.DecodeError as error:
                    fault = str(error)
                    entry.download.count_invalid(fault)
                else:
                    assert isinstance(message, m.ModelManifest | m.ModelChunk)
                    fault = entry.download.receive(message, now) or fault
            self._process_download(digest, entry, now)
        return fault

    def connection_lost(self, client: str, now: float) -> None:
        """The connection of ``client`` is gone, and what it was subscribed to."""
        for entry in self._entries.values():
            if entry.transport_client == client:
                entry.transport_client = None
                entry.download.reset_requests()
                self._request_topics(entry, now)

    def connection_established(self, now: float) -> None:
        """A connection has come; a download that waits for one may go on."""
        for entry in self._entries.values():
            if entry.model is None and entry.transport_client is None:
                self._request_topics(entry, now)

    def advance(self, now: float) -> None:
        """Ends the fetches whose patience is over, and asks again for what has not come."""
        for digest, entry in list(self._entries.items()):
            tired = [holder for holder, until in entry.deadlines.items() if now >= until]
            progress = entry.download.progress
            if entry.model is None and now >= entry.report_at:
                entry.report_at = now + REPORT_INTERVAL
                LOG.info("fetching the model %s: %s", digest[:12], progress)
            for holder in tired:
                self.release(holder, digest)
            if self._entries.get(digest) is entry and entry.model is None:
                self._request_topics(entry, now)
            for holder in tired:
                self._on_fetched(holder, digest, None, f"the model did not arrive in time: {progress}")

    def due(self) -> float | None:
        """When `advance` has to be called next."""
        dues = [until for entry in self._entries.values() for until in entry.deadlines.values()]
        for entry in self._entries.values():
            if entry.model is None:
                asked = entry.download.due() if entry.transport_client is not None else self._retry_at
                dues += [] if asked is None else [asked]
        return min(dues, default=None)

    def _process_download(self, digest: str, entry: _Entry, now: float) -> None:
        download = entry.download
        if download.state == "complete":
            entry.model = FetchedModel(digest, download.model, entry.buffer.memory)
        self._request_topics(entry, now)
        if download.state == "open":
            return
        waiting = list(entry.deadlines)
        entry.deadlines.clear()
        if entry.model is None:
            del self._entries[digest]
        for holder in waiting:
            self._on_fetched(holder, digest, entry.model, download.failure)

    def _request_topics(self, entry: _Entry, now: float) -> None:
        carrier = None if entry.transport_client is None else self._transport_of(entry.transport_client)
        if carrier is None:
            entry.transport_client = None
            entry.download.reset_requests()
            for holder in entry.deadlines:
                if (carrier := self._transport_of(holder.client)) is not None:
                    entry.transport_client = holder.client
                    break
            else:
                self._retry_at = now + TRANSPORT_RETRY_DELAY
                return
        asking = entry.download.subscription_changes(now)
        if asking.subscribe or asking.unsubscribe:
            carrier.change_subscriptions(asking.subscribe, asking.unsubscribe)

    def _drop(self, digest: str, entry: _Entry) -> None:
        del self._entries[digest]
        if entry.transport_client is not None and entry.model is None:
            carrier = self._transport_of(entry.transport_client)
            if carrier is not None:
                carrier.change_subscriptions((), entry.download.subscribed_topics())
