"""Tells the user why nothing happens: there is no broker, or no aggregator."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

from fl_edge.runtime.edge import Edge
from fl_edge.session.state import Session
from fl_shared.errors import BrokerUnreachable

LOG = logging.getLogger(__name__)

NOTICE_INTERVAL: Final = 30.0
"""Seconds between two log lines that say that no aggregator has answered."""
LOSS_NOTICE_INTERVAL: Final = 5.0
"""Seconds in which the edges of a fleet log the loss of the same broker only once."""


class ConnectionNotices:
    """Logs when edges have no broker, or no aggregator that answers.

    ``broker_timeout``: seconds that all edges together may be without a broker; ``None`` for no limit.
    """

    def __init__(self, edges: Sequence[Edge], broker: str, broker_timeout: float | None, now: float) -> None:
        self._edges = edges
        self._broker = broker
        self._timeout = broker_timeout
        self._connected: set[str] = set()
        self._disconnected_since: float | None = now
        self._last_loss = ("no answer yet", float("-inf"))
        self._next_notice = now + NOTICE_INTERVAL

    @property
    def has_broker(self) -> bool:
        """Whether at least one edge is connected."""
        return self._disconnected_since is None

    def connected(self, edge: Edge) -> None:
        """Logs that an edge has connected."""
        self._connected.add(edge.client)
        self._disconnected_since = None
        LOG.info("connected to %s", self._broker, extra={"client": edge.client})

    def closed(self, edge: Edge) -> None:
        """An edge that stops needs no broker any more."""
        self._connected.discard(edge.client)

    def connection_lost(self, edge: Edge, reason: str, now: float) -> None:
        """Logs that a connection has ended, or that an attempt to connect has failed."""
        self._connected.discard(edge.client)
        if self._disconnected_since is None and not self._connected:
            self._disconnected_since = now
        previous, lost_at = self._last_loss
        if reason != previous or now - lost_at > LOSS_NOTICE_INTERVAL:
            self._last_loss = (reason, now)
            LOG.warning("no broker: %s; trying again", reason, extra={"client": edge.client})

    def _cause(self) -> str:
        """Returns why no aggregator may answer, as far as an edge can see."""
        seen = [edge.state.aggregator for edge in self._edges if isinstance(edge.state, Session)]
        online = next(
            (presence for presence in seen if presence is not None and presence.state == "online"), None
        )
        if online is not None:
            return (
                f"run {online.run} is online, but does not answer: may this account write fl/register and read "
                "fl/replies?"
            )
        if any(seen):
            return "the last one is offline"
        return "none was seen: is the prefix right, and may this account read it?"

    def due(self) -> float:
        """Returns when `check` must be called next."""
        return min(self._next_notice, self._unreachable_at())

    def _unreachable_at(self) -> float:
        if self._timeout is None or self._disconnected_since is None:
            return math.inf
        return self._disconnected_since + self._timeout

    def check(self, now: float) -> None:
        """Logs how many edges wait for an aggregator, if that is `due`.

        Raises ``BrokerUnreachable`` if all edges have been without a broker for too long.
        """
        if now >= self._unreachable_at():
            raise BrokerUnreachable(f"no broker for {self._timeout:g} s: {self._last_loss[0]}")
        if now < self._next_notice:
            return
        self._next_notice = now + NOTICE_INTERVAL
        since = [edge.unanswered_since for edge in self._edges if edge.unanswered_since is not None]
        unanswered = sum(now - start > NOTICE_INTERVAL / 2 for start in since)
        if unanswered:
            count_text = f" ({unanswered} of {len(self._edges)} edges)" if len(self._edges) > 1 else ""
            LOG.info("waiting for an aggregator on %s%s: %s", self._broker, count_text, self._cause())
