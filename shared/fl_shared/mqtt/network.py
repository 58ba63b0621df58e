"""Many connections to an MQTT 5 broker, driven by one thread.

paho's own loop needs a thread and a ``select()`` for each client, which fails above file descriptor 1024.
Here one event loop (asyncio's, on its own thread) drives all clients of a `Network`, with paho's calls for
external loops (`paho.link`). `paho.fast_client` avoids unnecessary copies that paho makes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Self

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.event_loop import NetworkThread
from fl_shared.mqtt.events import (
    ConnectionEvent,
    ConnectionSettings,
)
from fl_shared.mqtt.paho.link import PahoLink


class Network:
    """Connections that share one thread (and a few more threads while they connect)."""

    def __init__(self, name: str = "mqtt") -> None:
        self._thread = NetworkThread(name)
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._reached_addresses: set[BrokerAddress] = set()

    def connect(self, settings: ConnectionSettings, handler: Callable[[ConnectionEvent], None]) -> Connection:
        """Starts a connection, which keeps trying until it is refused or closed; does not wait for it.

        ``handler`` runs on the network thread, where it delays every connection: it may only enqueue. Raises
        ``RuntimeError`` if the network is closed.
        """
        connection = Connection(
            self._thread,
            settings,
            handler,
            lambda owner: PahoLink(self._thread, owner),
            self._reached_addresses,
            self._forget,
        )
        with self._lock:
            self._connections.add(connection)
        if not self._thread.post(connection.attempt):
            raise RuntimeError("the network is closed")
        return connection

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    def check(self) -> None:
        """Raises the first error of a handler, or of this package, on the network thread, if there is one."""
        self._thread.check()

    def close(self, *, graceful: bool = True, timeout: float = 5.0) -> None:
        """Closes all connections at the same time (see `Connection.close`) and ends the thread.

        Raises ``RuntimeError`` if a handler calls it.
        """
        if self._thread.is_current:
            raise RuntimeError("a handler cannot close its network")
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            self._thread.post(partial(connection.begin_close, graceful, timeout))
        deadline = time.monotonic() + timeout + 1.0
        for connection in connections:
            connection.wait_closed(max(0.0, deadline - time.monotonic()))
        self._thread.stop(timeout=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
