"""Counts the edges that say that messages do not arrive, for the log and for the line of their round."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from fl_shared.mqtt.diagnosis import MESSAGES_MISSING
from fl_shared.protocol import messages as m
from fl_shared.system.flood_control import is_worth_logging

LOG: Final = logging.getLogger(__name__)

MAX_ROUNDS: Final = 4
"""Rounds that are remembered: a round's line is written when its version is evaluated, in a later round."""


class Delays:
    """What edges have reported (`m.Delayed`) since this start of the aggregator: in total, and by round."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._clients: dict[int, set[str]] = {}

    def add(self, message: m.Delayed, open_round: int | None) -> None:
        """Logs the first report of each kind and those at powers of ten; ``open_round`` is the open round, or null."""
        count = self._counts[message.awaits] = self._counts[message.awaits] + 1
        if is_worth_logging(count - 1, count):
            awaited = "parts of the model" if message.awaits == "model" else "an answer to its update"
            LOG.warning(
                "edge %s still waits for %s (%d so far): %s",
                message.client,
                awaited,
                count,
                MESSAGES_MISSING,
            )
        if open_round is not None and message.round in (None, open_round):
            self._clients.setdefault(open_round, set()).add(message.client)
            for number in sorted(self._clients)[:-MAX_ROUNDS]:
                del self._clients[number]

    def clients(self, number: int) -> set[str]:
        """Returns the edges that have reported a delay in round ``number``, if it is one of the last ones."""
        return self._clients.get(number, set())
