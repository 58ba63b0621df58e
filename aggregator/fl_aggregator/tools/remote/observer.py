"""Observes a run from outside: keeps the aggregator's birth and its status, as the broker delivers them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fl_aggregator.tools.remote.remote_run import RemoteRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.protocol.limits import ANSWER_WAIT


def is_stale_will(message: m.AggregatorPresence, presence: m.AggregatorPresence | None) -> bool:
    """Whether ``message`` is the will of an earlier connection of the aggregator than the newest, ``presence``.

    Such a will says nothing about whether the aggregator is online.
    """
    return (
        message.state == "offline"
        and presence is not None
        and presence.run == message.run
        and presence.session != message.session
    )


def status_age(status: m.Status) -> float:
    """Seconds since a status was written, by this machine's clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(status.written)).total_seconds()


class Observer(RemoteRun):
    """Keeps the newest birth and the newest status of the run under a prefix.

    `poll` processes what arrives.
    """

    def __init__(self, reach: BrokerAccess, *kinds: type[m.Message], **more: Any) -> None:
        """``kinds``: messages to subscribe to besides birth and status. ``more``: see `RemoteRun`."""
        observed: tuple[type[m.Message], ...] = (m.AggregatorPresence, m.Status, *kinds)
        rows = [CHANNELS.carrying(kind) for kind in observed]
        super().__init__(reach, CHANNELS.filters(reach.prefix, rows), **more)
        self.born: m.AggregatorPresence | None = None
        """The newest birth, or the will that followed it."""
        self.status_topic = t.build(self.prefix, t.StatusTopic())
        self.status: m.Status | None = None
        self.live_at: float | None = None
        """When ``status`` arrived (monotonic seconds), null if it was retained."""

    @property
    def is_online(self) -> bool:
        """Whether the newest presence of the aggregator is a birth."""
        return self.born is not None and self.born.state == "online"

    @property
    def absence_text(self) -> str:
        """Says that no run is online, and which the last one was, if that is known."""
        last = "" if self.born is None else f"; the last one, {self.born.run}, is offline"
        return f"no run is online {self.where}{last}"

    def poll(self, timeout: float) -> None:
        """Processes the next event of the connection, if there is one within ``timeout`` seconds.

        Raises ``UserError``.
        """
        received = self.receive(timeout)
        if received is None:
            return
        if received.payload:
            message = self.read(received)
            if message is not None:
                self.on_message(message, received)
        elif received.topic == self.status_topic:
            self.status = self.live_at = None

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Polls until ``condition`` holds. False if it has not held within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(left)
        return True

    def wait_until_subscribed(self) -> None:
        """Waits until the broker has granted the subscriptions. Raises ``RunFailed`` if it does not, ``UserError``."""
        if not self.wait_for(lambda: self.subscribed, ANSWER_WAIT):
            raise self.no_answer()

    def on_message(self, message: m.Message, received: mqtt.Received) -> None:
        """Keeps the birth or the status. Subclasses extend it for the messages of further subscriptions."""
        match message:
            case m.AggregatorPresence() if not is_stale_will(message, self.born):
                self.born = message
            case m.Status():
                self.status = message
                self.live_at = None if received.retain else time.monotonic()
