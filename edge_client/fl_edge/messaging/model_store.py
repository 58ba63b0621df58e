"""Fetches the models that the edges of one process need, once for all, and keeps each while it has a user.

The download of a model goes over the connection of one of its users (`ModelUser`), and moves to another
user's connection when that one breaks.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fl_shared.mqtt.diagnosis import MESSAGES_MISSING
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.flood_control import is_worth_logging
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.sections import WEIGHTS, ModelSection
from fl_shared.transfer.download import ModelDownload

LOG = logging.getLogger(__name__)

REPORT_INTERVAL: Final = 10.0
"""Seconds between two log lines about the progress of a long download."""
TRANSPORT_RETRY_DELAY: Final = 1.0
"""Seconds until a download that has no connection looks for one again."""


@dataclass(frozen=True, slots=True)
class ModelUser:
    """The user of a model: job ``job`` of ``client``, or the predictor of ``client`` if that is ``None``."""

    client: str
    job: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FetchedModel:
    """A complete model, whose bytes have this digest.

    ``memory`` holds the data of all sections, one after the other. ``name``: of the section that is needed.
    """

    digest: str
    sections: tuple[ModelSection, ...] = field(repr=False)
    memory: SharedBytes = field(repr=False)
    name: str = WEIGHTS

    @property
    def weights(self) -> ModelSection:
        """The section of the model that is needed."""
        return next(section for section in self.sections if section.name == self.name)

    @property
    def weights_memory(self) -> SharedBytes:
        """The part of ``memory`` that holds the section that is needed; it is not a copy."""
        preceding = itertools.takewhile(lambda section: section.name != self.name, self.sections)
        return self.memory.slice(sum(len(section.data) for section in preceding), len(self.weights.data))


class Transport(Protocol):
    """A connection over which a model can be fetched (`connection.EdgeConnection`)."""

    @property
    def receiving_at(self) -> float | None:
        """When the last bytes came of a large message that is still coming; null if none is."""

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        """Changes the subscriptions to the topics of models; a request may be dropped."""


FetchCallback = Callable[[ModelUser, str, FetchedModel | None, str], None]
"""Called once for each fetch that was not released, with the user, the digest, and the model or ``None``; the
last argument then says why."""


class _Buffer:
    """The memory in which a download is assembled.

    It is not part of `_Entry`: a reference cycle would keep large memory until the garbage collector finds
    it.
    """

    def __init__(self) -> None:
        self.memory = SharedBytes.new(0)

    def allocate(self, size: int) -> memoryview:
        self.memory = SharedBytes.new(size)
        return self.memory.view


class _Entry:
    """A model that has a user, complete or on its way."""

    def __init__(self, digest: str, now: float, section: str) -> None:
        self.buffer = _Buffer()
        self.section = section
        self.download = ModelDownload(digest, allocate=self.buffer.allocate, section=section)
        self.model: FetchedModel | None = None
        self.users: set[ModelUser] = set()
        self.deadlines: dict[ModelUser, float] = {}
        """By user that still waits, when its fetch times out."""
        self.transport_client: str | None = None
        self.report_at = now + REPORT_INTERVAL


class ModelStore:
    """Shares fetched models among the users in one process. Only the loop's thread may call it.

    ``transport_of`` returns the connection of a client, or ``None`` while it has none. ``on_overdue`` is called with
    the client over whose connection parts of a model have not arrived in time. All times are in seconds.
    """

    def __init__(
        self,
        transport_of: Callable[[str], Transport | None],
        on_fetched: FetchCallback,
        on_overdue: Callable[[str], None],
    ) -> None:
        self._transport_of = transport_of
        self._on_fetched = on_fetched
        self._on_overdue = on_overdue
        self._entries: dict[str, _Entry] = {}
        self._retry_at = 0.0
        self._overdue_topics = 0

    def fetch(self, user: ModelUser, digest: str, now: float, timeout: float, section: str = WEIGHTS) -> None:
        """Makes ``user`` a user of the model, and fetches the model if it is not here. It has this ``section``.

        ``on_fetched`` is called at once if the model is here, and otherwise within the timeout.
        """
        entry = self._entries.get(digest)
        if entry is None:
            entry = self._entries[digest] = _Entry(digest, now, section)
        entry.users.add(user)
        if entry.model is not None:
            self._on_fetched(user, digest, entry.model, "")
            return
        entry.deadlines[user] = now + timeout
        self._request_topics(entry, now)

    def get(self, user: ModelUser, digest: str) -> FetchedModel | None:
        """Returns the model if it is complete and ``user`` uses it, otherwise ``None``."""
        entry = self._entries.get(digest)
        return entry.model if entry is not None and user in entry.users else None

    def progress(self, digest: str) -> str:
        """Describes how far the fetch of a model has come; empty if the model has no user."""
        entry = self._entries.get(digest)
        return "" if entry is None else entry.download.progress

    def release(self, user: ModelUser, digest: str) -> None:
        """Ends the use of a model, which is dropped when it has no other user.

        A fetch for this user that is under way ends without a call of ``on_fetched``.
        """
        entry = self._entries.get(digest)
        if entry is None:
            return
        entry.users.discard(user)
        entry.deadlines.pop(user, None)
        if not entry.users:
            self._drop(digest, entry)

    def receive(
        self, topic: t.ManifestTopic | t.ChunkTopic, payload: bytes | memoryview, now: float
    ) -> str | None:
        """Takes a message on one of a model's topics, and returns why it was useless, or ``None``."""
        reason = None
        for digest, entry in list(self._entries.items()):
            if entry.model is not None or not digest.startswith(topic.digest12):
                continue
            if not payload:
                entry.download.cleared()
            else:
                try:
                    message = codec.decode(topic, payload)
                except codec.DecodeError as error:
                    reason = str(error)
                    entry.download.count_invalid(reason)
                else:
                    assert isinstance(message, m.ModelManifest | m.ModelChunk)
                    reason = entry.download.receive(message, now) or reason
            self._process_download(digest, entry, now)
        return reason

    def connection_lost(self, client: str, now: float) -> None:
        """Moves the downloads that used the lost connection of ``client`` to another one."""
        for entry in self._entries.values():
            if entry.transport_client == client:
                entry.transport_client = None
                entry.download.reset_requests()
                self._request_topics(entry, now)

    def connection_established(self, now: float) -> None:
        """Lets downloads that wait for a connection continue over a new one."""
        for entry in self._entries.values():
            if entry.model is None and entry.transport_client is None:
                self._request_topics(entry, now)

    def advance(self, now: float) -> None:
        """Ends the fetches whose time is over, and requests again what has not arrived, if any of it is `due`."""
        if (due := self.due()) is None or now < due:
            return
        for digest, entry in list(self._entries.items()):
            expired = [user for user, deadline in entry.deadlines.items() if now >= deadline]
            progress = entry.download.progress if expired else ""
            if entry.model is None and now >= entry.report_at:
                entry.report_at = now + REPORT_INTERVAL
                LOG.info("fetching the model %s: %s", digest[:12], entry.download.progress)
            for holder in expired:
                self.release(holder, digest)
            if self._entries.get(digest) is entry and entry.model is None:
                self._request_topics(entry, now)
            for holder in expired:
                self._on_fetched(holder, digest, None, f"the model did not arrive in time: {progress}")

    def _warn_of_overdue(self, count: int) -> None:
        before, self._overdue_topics = self._overdue_topics, self._overdue_topics + count
        if is_worth_logging(before, self._overdue_topics):
            LOG.warning(
                "parts of the model have not arrived after their subscription (%d so far), and are asked for again: %s",
                self._overdue_topics,
                MESSAGES_MISSING,
            )

    def due(self) -> float | None:
        """Returns when `advance` must be called next, or ``None`` if nothing waits."""
        dues = [deadline for entry in self._entries.values() for deadline in entry.deadlines.values()]
        for entry in self._entries.values():
            if entry.model is None:
                dues.append(entry.report_at)
                due = entry.download.due() if entry.transport_client is not None else self._retry_at
                dues += [] if due is None else [due]
        return min(dues, default=None)

    def _process_download(self, digest: str, entry: _Entry, now: float) -> None:
        download = entry.download
        if download.state == "complete":
            entry.model = FetchedModel(digest, download.model, entry.buffer.memory, entry.section)
        self._request_topics(entry, now)
        if download.state == "open":
            return
        users = list(entry.deadlines)
        entry.deadlines.clear()
        if entry.model is None:
            del self._entries[digest]
        for user in users:
            self._on_fetched(user, digest, entry.model, download.failure)

    def _request_topics(self, entry: _Entry, now: float) -> None:
        transport = None if entry.transport_client is None else self._transport_of(entry.transport_client)
        if transport is None:
            entry.transport_client = None
            entry.download.reset_requests()
            for user in entry.deadlines:
                if (transport := self._transport_of(user.client)) is not None:
                    entry.transport_client = user.client
                    break
            else:
                self._retry_at = now + TRANSPORT_RETRY_DELAY
                return
        if (receiving_at := transport.receiving_at) is not None:
            entry.download.message_under_way(receiving_at)
        overdue_before = entry.download.overdue_topics
        change = entry.download.subscription_changes(now)
        if (overdue := entry.download.overdue_topics - overdue_before) and entry.transport_client is not None:
            self._warn_of_overdue(overdue)
            self._on_overdue(entry.transport_client)
        if change.subscribe or change.unsubscribe:
            transport.change_subscriptions(change.subscribe, change.unsubscribe)

    def _drop(self, digest: str, entry: _Entry) -> None:
        del self._entries[digest]
        if entry.transport_client is not None and entry.model is None:
            transport = self._transport_of(entry.transport_client)
            if transport is not None:
                transport.change_subscriptions((), entry.download.subscribed_topics())
