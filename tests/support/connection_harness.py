"""The product's own MQTT connection under test."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import TypeVar

from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.events import (
    Connected,
    ConnectionEvent,
    ConnectionSettings,
    ConnectRefused,
    Lost,
    Received,
    Subscribed,
)
from fl_shared.mqtt.network import Network
from tests.support.broker import Mosquitto
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import DEADLINE, PATIENCE

NEVER = 3600.0
"""Seconds that no test lasts: a close that waits for its timeout exceeds the test's own."""

E = TypeVar("E", Connected, Lost, Received, ConnectRefused, Subscribed)


class ConnectionHarness:
    """A connection and its events, in order."""

    def __init__(self, network: Network, settings: ConnectionSettings) -> None:
        self.events: queue.Queue[ConnectionEvent] = queue.Queue()
        self.connection: Connection = network.connect(settings, self.events.put)

    def next(self, kind: type[E], timeout: float = DEADLINE) -> E:
        """The next event of this kind; others before it are forgotten."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            event = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if isinstance(event, kind):
                return event

    def subscribed(self, *filters: str, qos: int = 1) -> Subscribed:
        assert self.connection.subscribe([(name, qos) for name in filters])
        return self.next(Subscribed)

    def quiet_for(self, seconds: float) -> list[Received]:
        """The messages that come within ``seconds``; nothing else may happen."""
        time.sleep(seconds)
        seen = []
        with contextlib.suppress(queue.Empty):
            while True:
                event = self.events.get_nowait()
                if isinstance(event, Received):
                    seen.append(event)
        return seen


def settings(broker: Mosquitto | TcpProxy, **more: object) -> ConnectionSettings:
    return ConnectionSettings(broker.address, **({"retry_cap": 0.3} | more))  # type: ignore[arg-type]


def connected(network: Network, broker: Mosquitto, **more: object) -> ConnectionHarness:
    made = ConnectionHarness(network, settings(broker, **more))
    made.connection.wait_connected(DEADLINE)
    made.next(Connected)
    return made
