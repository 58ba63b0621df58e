"""A plain MQTT client that writes down what it hears."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from fl_shared import mqtt
from tests.support.broker import Mosquitto


class Listener:
    """Subscribes to one filter while its ``with`` block runs."""

    def __init__(self, broker: Mosquitto, name: str) -> None:
        self._broker = broker
        self._filter = name
        self._seen: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._network = mqtt.Network("listener")
        self._connection: mqtt.Connection | None = None

    def all(self) -> list[tuple[str, bytes, bool]]:
        """(topic, payload, retained) of each message so far."""
        return list(self._seen)

    def _take(self, event: mqtt.Event) -> None:
        if isinstance(event, mqtt.Received):
            self._seen.append((event.topic, bytes(event.payload), event.retain))
        elif isinstance(event, mqtt.Subscribed):
            assert not event.refused
            self._subscribed.set()

    def __enter__(self) -> Self:
        self._connection = self._network.connect(mqtt.ConnectionSettings(self._broker.address), self._take)
        self._connection.wait_connected(10)
        self._connection.subscribe([(self._filter, 1)])
        assert self._subscribed.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(0.1)
        self._network.close()
