"""Publishes a message, and waits for room in the connection's queue."""

from __future__ import annotations

import logging
import time
from typing import Final

from fl_shared.errors import MessageTooLarge, QueueFull
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.outbox import Payload

LOG: Final = logging.getLogger(__name__)

PUBLISH_TIMEOUT: Final = 30.0
"""Seconds that a message waits for space in the queue. Then it is dropped, and published again after a
reconnect if it is retained."""


def publish_waiting(
    connection: Connection, topic: str, payload: Payload, *, retain: bool, correlation: bytes | None = None
) -> None:
    """Publishes at QoS 1. Drops a message that the broker does not accept, or that finds no room within 30 s."""
    deadline = time.monotonic() + PUBLISH_TIMEOUT
    while True:
        try:
            connection.publish(topic, payload, qos=1, retain=retain, correlation_data=correlation)
            return
        except MessageTooLarge as error:
            LOG.warning("not published, and missing for its readers until the broker accepts it: %s", error)
            return
        except QueueFull as error:
            if time.monotonic() >= deadline:
                # Edges repeat unanswered messages; retained ones are published again on reconnect.
                LOG.warning(
                    "not published: %s: %s; edges will ask again, the rest is repeated after a reconnect",
                    topic,
                    error,
                )
                return
            time.sleep(0.002)
