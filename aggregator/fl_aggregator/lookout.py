"""A run as anybody sees it from outside: the aggregator's birth and its status, as the broker brings them."""

from __future__ import annotations

import logging
import queue
from typing import TYPE_CHECKING, Final

from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.errors import BadSignature, UserError

if TYPE_CHECKING:
    from fl_shared.kit import Kit

LOG: Final = logging.getLogger(__name__)

OVER: Final = ("interrupted", "finished", "failed")
"""The phases of a run's last status."""


class Lookout:
    """Belongs to one thread, which calls `hear`; ``inbox`` is what the connection puts its events into.

    With a ``kit`` it believes only what the aggregator has signed.
    """

    def __init__(
        self,
        connection: mqtt.Connection,
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
                names = (t.AggregatorTopic(), t.StatusTopic())
                self._connection.subscribe([(t.build(self._prefix, name), 1) for name in names])
            case mqtt.Subscribed(refused=()):
                self.answered = True
            case mqtt.Subscribed(refused=refused):
                raise UserError(f"the broker does not let this account read {', '.join(refused)}")
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Lost(reason=reason):
                LOG.warning("%s; trying again", reason)
            case mqtt.Received():
                self._received(event)

    def _received(self, received: mqtt.Received) -> None:
        topic = t.parse(self._prefix, received.topic)
        if not isinstance(topic, t.AggregatorTopic | t.StatusTopic):
            return
        try:
            if self._verifier is not None:
                self._verifier.check(received.topic, received.payload)
            message = codec.decode(topic, received.payload)
        except (codec.DecodeError, BadSignature):
            return
        match message:
            case m.AggregatorPresence(state="offline") if self._is_old_will(message):
                pass
            case m.AggregatorPresence():
                self.born = message
            case m.Status():
                self.status, self.is_live = message, not received.retain

    def _is_old_will(self, message: m.AggregatorPresence) -> bool:
        """Of a connection that is not the aggregator's newest: it says nothing."""
        born = self.born
        return born is not None and born.run == message.run and born.session != message.session
