"""Says which messages the broker refuses: a PUBACK with a reason code is the only sign of a missing right."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.system.flood_control import is_worth_logging
from fl_shared.system.text import size_text

LOG: Final = logging.getLogger(__name__)

NOT_AUTHORIZED: Final = 0x87
TOO_LARGE: Final = 0x95
MAX_TOPICS: Final = 100
"""Topics that are told apart."""


class RefusedPublishes:
    """Counts the refused messages of one connection, by topic, and logs the first and those at powers of ten."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._counts: Counter[str] = Counter()

    def count(self, topic: str, size: int, code: int, reason: str) -> None:
        """Counts a message of ``size`` bytes that the broker has refused with this reason code of PUBACK."""
        if topic not in self._counts and len(self._counts) >= MAX_TOPICS:
            topic = "other topics"
        self._counts[topic] += 1
        count = self._counts[topic]
        if is_worth_logging(count - 1, count):
            advice = ""
            if code == NOT_AUTHORIZED:
                advice = f": check the rights of {self._settings.account}"
            elif code == TOO_LARGE:
                advice = f", {size_text(size)}: raise message_size_limit in mosquitto.conf, or use a smaller --chunk"
            LOG.warning(
                "%s refuses what is published on %s: %s (0x%02x, %d so far)%s",
                self._settings.address,
                topic,
                reason,
                code,
                count,
                advice,
            )
