"""Replacements for connections that record what they are asked to do; there is no broker."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.outbox import Payload, Publish
from tests.support.client import NOT_AUTHORISED


class RecordingConnection:
    """Replaces `mqtt.Connection`, and records its calls. Other tests cover what a broker does."""

    limits = None

    def __init__(self) -> None:
        self.own: list[tuple[str, int]] = []
        self.foreign: list[tuple[str, int]] = []
        self.published: list[tuple[str, bytes, bool]] = []

    def wait_connected(self, timeout: float, *, first_attempt_only: bool) -> None: ...

    def subscribe(
        self, filters: list[tuple[str, int]], *, no_local: bool = False, retain_as_published: bool = False
    ) -> bool:
        assert no_local or not retain_as_published
        (self.foreign if no_local else self.own).extend(filters)
        return True

    def unsubscribe(self, filters: list[str]) -> bool:
        return bool(filters)

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> None:
        assert qos == 1
        assert correlation_data is None, "nothing here is an answer to a command"
        self.published.append((topic, b"".join(Publish(topic, payload, qos, retain).pieces), retain))


class RecordingNetwork:
    """Replaces `Network`: connects at once."""

    def __init__(self) -> None:
        self.connections: list[RecordingConnection] = []

    def connect(
        self, settings: mqtt.ConnectionSettings, on_event: Callable[[mqtt.ConnectionEvent], None]
    ) -> RecordingConnection:
        assert callable(on_event)
        self.connections.append(RecordingConnection())
        assert callable(settings.will) or settings.will is None
        if settings.will is not None:
            settings.will()
        return self.connections[-1]


class Broker:
    """Replaces the doctor's probes: a broker with access rights.

    Topics that begin with ``unwritten`` cannot be written, topics that begin with ``unread`` cannot be read.
    """

    def __init__(self, unwritten: str, unread: str) -> None:
        self._unwritten, self._unread = unwritten, unread
        self._said: list[mqtt.Received] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def subscribe(self, filters: list[str]) -> None:
        assert filters

    def publish_and_wait(self, topic: str, payload: bytes) -> int:
        assert payload == b""
        if topic.startswith(self._unwritten):
            return NOT_AUTHORISED
        if not topic.startswith(self._unread):
            self._said.append(mqtt.Received(topic, payload, False, 1))
        return 0

    def receive(self, count: int, timeout: float) -> list[mqtt.Received]:
        heard, self._said = self._said[:count], self._said[count:] if timeout else []
        return heard
