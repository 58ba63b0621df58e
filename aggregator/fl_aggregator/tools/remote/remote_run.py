"""Reads a run as a client of its broker: one connection, its subscriptions, and the messages that arrive."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import ANSWER_WAIT
from fl_shared.security.verified import decode_verified

LOG: Final = logging.getLogger(__name__)


class RemoteRun:
    """Connects on entry, subscribes on every connection, and disconnects on exit. Belongs to one thread.

    ``filters``: (topic filter, QoS). ``timeout``: seconds for the first connection, which is tried once; a
    connection that is lost later is restored automatically. ``more``: further `ConnectionSettings`.
    """

    def __init__(
        self,
        reach: BrokerAccess,
        filters: Sequence[tuple[str, int]],
        *,
        timeout: float = mqtt.CONNECT_TIMEOUT,
        **more: Any,
    ) -> None:
        self.prefix = reach.prefix
        self.address = str(reach.address)
        self.where = f"under the prefix {reach.prefix!r} at {reach.address}"
        """The prefix and the broker in words, for the end of a sentence about the run."""
        self.subscribed = False
        """Whether the broker has granted the subscriptions of this connection.

        Retained messages follow at once.
        """
        self.shared_subscriptions = True
        """False if the broker has announced that it has none."""
        self.lost: tuple[float, str] | None = None
        """When the connection was lost (monotonic seconds), and why; null while connected."""
        self._verifier = None if reach.kit is None else reach.kit.verifier()
        self._filters = filters
        self._timeout = timeout
        self._settings = reach.connection_settings(**more)
        self._inbox: queue.SimpleQueue[mqtt.ConnectionEvent] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        """Raises ``BrokerUnreachable`` or ``BrokerRefused``."""
        self._network = Network("fl-remote")
        try:
            self._connection = self._network.connect(self._settings, self._inbox.put)
            self._connection.wait_connected(self._timeout, first_attempt_only=True)
        except BaseException:
            self._network.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._network.close()

    def receive(self, timeout: float) -> mqtt.Received | None:
        """The next message, or null after ``timeout`` seconds without one and after any other event.

        Raises ``UserError`` if the broker refuses the connection or a subscription.
        """
        self._network.check()
        try:
            event = self._inbox.get(timeout=max(0.001, timeout))
        except queue.Empty:
            return None
        match event:
            case mqtt.Received():
                return event
            case mqtt.Connected(shared_subscriptions=shared):
                self.lost, self.subscribed, self.shared_subscriptions = None, False, shared
                self._connection.subscribe(self._filters)
            case mqtt.Subscribed(refused=()):
                self.subscribed = True
            case mqtt.Subscribed(refused=refused):
                raise UserError(
                    f"the broker does not allow this account to read {', '.join(refused)}: check its rights, "
                    "or use an account that may, for example the operator's"
                )
            case mqtt.ConnectRefused(reason=reason):
                raise UserError(reason)
            case mqtt.Lost(reason=reason):
                LOG.info("%s; trying again", reason)
                self.lost = (time.monotonic() if self.lost is None else self.lost[0], reason)
                self.subscribed = False
        return None

    def no_answer(self) -> RunFailed:
        """What to raise if the broker has not granted the subscriptions within `ANSWER_WAIT` seconds."""
        return RunFailed(f"{self.address} has not answered within {ANSWER_WAIT:g} s")

    def read(self, received: mqtt.Received) -> m.Message | None:
        """The decoded message, null if it is not a valid one.

        With a kit, the aggregator must have signed it.
        """
        return decode_verified(self.prefix, received, self._verifier)

    def publish(self, topic: str, payload: bytes, **properties: Any) -> None:
        """Publishes a message as `Connection.publish` does. Without a connection, the message is dropped."""
        self._connection.publish(topic, payload, **properties)
