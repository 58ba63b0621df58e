"""Tells what nobody is to blame for from what others publish on the aggregator's topics.

The broker retains what an earlier run, or an earlier session of this one, has published. It comes once for each
topic right after the subscription, ahead of what any edge sends in answer to our birth, and is cleared or
replaced. A broker without No Local also returns what the
aggregator itself has just published, and one that is bridged to it what was retained there before the bridge was lost.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.channels import Channels
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system.text import names_text

QUIET: Final = 2.0
"""Seconds without a leftover after which no more are expected."""
MAX_WAIT: Final = 10.0
"""Seconds after a subscription in which leftovers are expected, at most."""
MAX_REMEMBERED: Final = 4096
"""Publications that are remembered, to recognise them when they return."""
MAX_DIGESTED: Final = 64 * 2**10
"""Bytes of a publication, from its beginning, that are digested: a chunk's digest and index are among them."""
NEVER_SENT: Final = 2**64 - 1
"""The key of no publication: none is that long."""


class Leftovers:
    """Counts leftovers for one line in the log. Times are seconds of a monotonic clock."""

    def __init__(self, prefix: str, scope: EnvelopeSource, channels: Channels) -> None:
        self._prefix = prefix
        self._scope = scope
        self._channels = channels
        self._begun_at = self._last_at = -math.inf
        self._expected = False
        self._topics: set[str] = set()
        self._runs: dict[str, None] = {}
        self._again_until: dict[str, float] = {}
        self._sent = np.full(MAX_REMEMBERED, NEVER_SENT, np.uint64)
        self._next = 0

    def session_begun(self, now: float) -> None:
        """Must be called before a subscription: from now on, leftovers are expected."""
        self._begun_at = self._last_at = now
        self._expected = True
        self._topics.clear()
        self._runs.clear()
        self._again_until.clear()

    def subscribed_again(self, topics: Iterable[str], now: float) -> None:
        """Must be called before topics are subscribed to again.

        What is retained on each comes once more: it may be a leftover still, though edges have registered meanwhile.
        """
        self._again_until = dict.fromkeys(topics, now + MAX_WAIT)

    def edge_registered(self) -> None:
        """Records that an edge has answered our birth: what the broker had retained has come before."""
        self._expected = False

    def published(self, topic: str, *payload: bytes | memoryview) -> None:
        """Remembers what was published, in case the broker returns it."""
        self._sent[self._next] = _key(topic, *payload)
        self._next = (self._next + 1) % MAX_REMEMBERED

    def is_echo(self, topic: str, payload: bytes | memoryview) -> bool:
        """Whether a broker returns a message that we have published: nobody else is to blame for it."""
        return _key(topic, payload) in self._sent

    def take(self, topic: str, payload: bytes | memoryview, now: float) -> bool:
        """Whether a retained message that is not our newest is a leftover; one of another session is counted."""
        is_first = self._expected and topic not in self._topics and now < self._expected_until()
        if not is_first and now >= self._again_until.pop(topic, -math.inf):
            return False
        if _key(topic, payload) in self._sent:
            return True  # published before the subscription, and replaced since
        parsed = self._channels.parse(self._prefix, topic)
        try:
            message = None if parsed is None else codec.decode(parsed, payload, self._channels)
        except codec.DecodeError:
            return False
        run, incarnation = getattr(message, "run", None), getattr(message, "incarnation", None)
        is_own_will = isinstance(message, m.AggregatorPresence) and message.state == "offline"
        if message is None or (
            (run, incarnation) == (self._scope.run, self._scope.incarnation) and not is_own_will
        ):
            return False
        if is_first:
            self._topics.add(topic)
            if run is not None:
                self._runs[run] = None
            self._last_at = now
        return True

    def _expected_until(self) -> float:
        return min(self._last_at + QUIET, self._begun_at + MAX_WAIT)

    def due(self) -> float:
        """Returns when `pop_summary` has a line; ∞ if there was no leftover."""
        return self._expected_until() if self._topics else math.inf

    def pop_summary(self, now: float) -> str | None:
        """The line about all leftovers, once no more are expected; null before, and if there were none."""
        if not self._topics or now < self._expected_until():
            return None
        count = len(self._topics)
        runs = f" of run {names_text(list(self._runs), 3)}" if self._runs else ""
        self._topics.clear()
        return f"cleared or replaced {count} retained message{'' if count == 1 else 's'}{runs}"


def _key(topic: str, *payload: bytes | memoryview) -> int:
    """Returns length and checksum in one number of 64 bits: thousands of topics would be a megabyte."""
    left, checksum = MAX_DIGESTED, zlib.crc32(topic.encode())
    for piece in payload:
        checksum = zlib.crc32(piece[:left], checksum)
        left -= min(left, len(piece))
    return sum(map(len, payload)) << 32 | checksum
