"""A client that publishes without end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from fl_shared.errors import QueueFull
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import topics as t
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

PAUSE: Final = 1 / 400
"""Seconds between two messages after the burst. That is above every limit, and an aggregator can read three such
floods on a machine that is several times slower: what it cannot read in time, the broker drops, whoever has sent it."""


class Flood:
    """Publishes what ``make`` returns from a thread of its own: ``burst`` messages at once, then 400 a second."""

    def __init__(
        self, network: Network, broker: Mosquitto, make: Callable[[int], tuple[t.Topic, bytes]], burst: int
    ) -> None:
        self.sent = 0
        self._burst = burst
        self._make = make
        self._over = threading.Event()
        limits: dict[str, Any] = {"max_queued": 2000, "max_queued_bytes": 2**28}
        self._connection = network.connect(
            mqtt.ConnectionSettings(broker.address, **limits), lambda _event: None
        )
        self._connection.wait_connected(10)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            topic, payload = self._make(self.sent)
            try:
                self._connection.publish(t.build("fl", topic), payload)
                self.sent += 1
                if self.sent > self._burst:
                    self._over.wait(PAUSE)
            except QueueFull:
                time.sleep(0.005)

    def wait_for_burst(self) -> None:
        """Waits until the burst is sent."""
        wait_until(lambda: self.sent >= self._burst, 120, f"{self._burst} messages of the flood")

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(10)
