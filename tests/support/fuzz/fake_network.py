"""Connections without a broker: a test receives what our programs publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.events import check_topic
from fl_shared.mqtt.outbox import Payload, Publish

Published = Callable[[str, bytes], None]


class FakeConnection:
    """Stands in for ``mqtt.Connection``; ``retained`` is called for what is retained, ``published`` for the rest."""

    limits: mqtt.Connected | None = None

    def __init__(
        self,
        published: Published,
        on_event: Callable[[mqtt.ConnectionEvent], None],
        retained: Published = lambda _topic, _payload: None,
    ) -> None:
        self._published = published
        self._retained = retained
        self._on_event = on_event

    def wait_connected(self, timeout: float, *, first_attempt_only: bool = False) -> None:
        assert timeout > 0 or first_attempt_only

    def subscribe(self, filters: Sequence[tuple[str, int]], **options: bool) -> bool:
        self._on_event(mqtt.Subscribed(tuple(name for name, _ in filters), ()))
        return bool(filters) or any(options.values())

    def unsubscribe(self, filters: Sequence[str]) -> bool:
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
        assert qos == (0 if topic.endswith("/log") and payload else 1), (
            "only lines of a log, not what clears one"
        )
        assert correlation_data is None or isinstance(correlation_data, bytes)
        check_topic(topic)  # as the real one does: it raises ValueError
        hear = self._retained if retain else self._published
        hear(topic, b"".join(Publish(topic, payload, qos, retain).pieces))

    receiving_at: float | None = None

    def close(self, *, graceful: bool, timeout: float = 0.0) -> None:
        pass


class FakeNetwork:
    """Stands in for ``mqtt.Network``: connects at once, as often as it is asked to."""

    def __init__(self, published: Published, retained: Published = lambda _topic, _payload: None) -> None:
        self._published = published
        self._retained = retained
        self.opened: list[tuple[mqtt.ConnectionSettings, Callable[[mqtt.ConnectionEvent], None]]] = []

    def connect(
        self, settings: mqtt.ConnectionSettings, on_event: Callable[[mqtt.ConnectionEvent], None]
    ) -> FakeConnection:
        self.opened.append((settings, on_event))
        self.up(settings, on_event)
        return FakeConnection(self._published, on_event, self._retained)

    def up(self, settings: mqtt.ConnectionSettings, on_event: Callable[[mqtt.ConnectionEvent], None]) -> None:
        """Tells the handler that it is connected (again)."""
        if callable(settings.will):
            settings.will()
        on_event(mqtt.Connected(2**28, 100, settings.keepalive))
