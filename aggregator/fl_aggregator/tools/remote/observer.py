"""A run as anybody sees it from outside: the aggregator's birth and its status, as the broker brings them."""

from __future__ import annotations

import logging
import queue
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fl_shared.errors import UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.protocol import messages as m
from fl_shared.protocol.channels import CHANNELS
from fl_shared.security.verified import read

if TYPE_CHECKING:
    from fl_shared.security.kit import Kit

LOG: Final = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 6.0
"""An attempt has 5 s, and then a reason."""


def is_old_will(message: m.AggregatorPresence, born: m.AggregatorPresence | None) -> bool:
    """Of a connection that is not the aggregator's newest, which ``born`` tells of: it says nothing."""
    return (
        message.state == "offline"
        and born is not None
        and born.run == message.run
        and born.session != message.session
    )


def age(status: m.Status) -> float:
    """Seconds since it was written, by our clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(status.written)).total_seconds()


class Lookout:
    """Belongs to one thread, which calls `hear`; ``inbox`` is what the connection puts its events into.

    With a ``kit`` it believes only what the aggregator has signed.
    """

    def __init__(
        self,
        connection: Connection,
        inbox: queue.SimpleQueue[mqtt.Event],
        prefix: str,
        kit: Kit | None = None,
    ) -> None:
        self._verifier = None if kit is None else kit.verifier()
        self._connection = connection
        self._inbox = inbox
        self._prefix = prefix
        self.born: m.AggregatorPresence | None = None
        """The newest birth, or the will that followed it."""
        self.status: m.Status | None = None
        self.is_live = False
        """Whether ``status`` was said while we listened, and not before."""
        self.answered = False
        """Whether the broker has let us listen: what it has retained follows at once."""

    def hear(self, timeout: float) -> None:
        """Takes one thing that arrives within ``timeout`` seconds, if one does. Raises ``UserError`` if refused."""
        try:
            event = self._inbox.get(timeout=max(0.01, timeout))
        except queue.Empty:
            return
        match event:
            case mqtt.Connected():
                rows = [CHANNELS.carrying(kind) for kind in (m.AggregatorPresence, m.Status)]
                self._connection.subscribe(CHANNELS.filters(self._prefix, rows))
            case mqtt.Subscribed(refused=()):
                self.answered = True
            case mqtt.Subscribed(refused=refused):
                raise UserError(f"the broker does not allow this account to read {', '.join(refused)}")
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Lost(reason=reason):
                LOG.warning("%s; trying again", reason)
            case mqtt.Received():
                self._received(event)

    def _received(self, received: mqtt.Received) -> None:
        match read(self._prefix, received, self._verifier):
            case m.AggregatorPresence() as message if not is_old_will(message, self.born):
                self.born = message
            case m.Status() as message:
                self.status, self.is_live = message, not received.retain
