"""The messages that the aggregator keeps retained at the broker, and the repair of their topics.

The broker may forget retained messages or restore cleared ones, and other clients may write to our topics.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from fl_shared.mqtt.outbox import Pieces

LOG: Final = logging.getLogger(__name__)

PayloadFactory = Callable[[], Pieces]
"""Makes a retained message's payload again, so that a model's chunks are not kept in memory a second time."""

REPAIR_INTERVAL: Final = 1.0
"""Seconds between two repairs of the same topic."""
MAX_REPAIRED_TOPICS: Final = 10_000
"""Topics for which the time of the last repair is remembered; if there are more, all are forgotten."""


class RetainedMessages:
    """Remembers what is retained. ``publish`` publishes a payload, retained; an empty one clears the topic."""

    def __init__(self, publish: Callable[[str, Pieces], None]) -> None:
        self._publish = publish
        self._payloads: dict[str, PayloadFactory] = {}
        self._repaired_at: dict[str, float] = {}
        self._pending_repairs: set[str] = set()

    def retain(self, topic: str, payload: Pieces, make_payload: PayloadFactory) -> None:
        """Publishes a message, and remembers how to make its payload again."""
        self._payloads[topic] = make_payload
        self._publish(topic, payload)

    def clear(self, topic: str) -> bool:
        """Clears a message that is remembered; returns False if there is none on the topic."""
        if self._payloads.pop(topic, None) is None:
            return False
        self._publish(topic, ())
        return True

    def payload(self, topic: str) -> bytes:
        """Returns what is retained on a topic; empty if nothing is."""
        make_payload = self._payloads.get(topic)
        return b"" if make_payload is None else b"".join(make_payload())

    def publish_all(self, *, but: str) -> None:
        """Publishes everything again, except on the topic ``but``."""
        for topic, make_payload in list(self._payloads.items()):
            if topic != but:
                self._publish(topic, make_payload())

    def repair(self, topic: str) -> None:
        """Publishes our message on a topic again, or clears the topic; at most once a second."""
        if len(self._repaired_at) >= MAX_REPAIRED_TOPICS:
            self._repaired_at.clear()
        if time.monotonic() < self._repairable_at(topic):
            self._pending_repairs.add(topic)  # for `run_due_repairs`; otherwise the second message would stay
        else:
            self._repair(topic)

    def due(self) -> float:
        """Returns when `run_due_repairs` repairs something; ∞ if nothing was put off. The clock is monotonic."""
        return min(map(self._repairable_at, self._pending_repairs), default=math.inf)

    def run_due_repairs(self, now: float) -> None:
        """Performs the repairs that were put off because their topic had just been repaired."""
        for topic in [each for each in self._pending_repairs if now >= self._repairable_at(each)]:
            self._repair(topic)

    def _repairable_at(self, topic: str) -> float:
        return self._repaired_at.get(topic, -math.inf) + REPAIR_INTERVAL

    def _repair(self, topic: str) -> None:
        self._pending_repairs.discard(topic)
        self._repaired_at[topic] = time.monotonic()
        payload = self.payload(topic)
        LOG.debug("%s: %s a retained message", topic, "replaced" if payload else "cleared")
        self._publish(topic, (payload,))
