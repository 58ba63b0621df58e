"""A run as anybody sees it from outside: the aggregator's birth and its status, as the broker brings them."""

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


def is_stale_will(message: m.AggregatorPresence, born: m.AggregatorPresence | None) -> bool:
    """Of a connection that is not the aggregator's newest, which ``born`` tells of: it says nothing."""
    return (
        message.state == "offline"
        and born is not None
        and born.run == message.run
        and born.session != message.session
    )


def status_age(status: m.Status) -> float:
    """Seconds since it was written, by our clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(status.written)).total_seconds()


class Observer(RemoteRun):
    """Keeps the newest birth and the newest status of the run under a prefix; `poll` takes what arrives."""

    def __init__(self, reach: BrokerAccess, *kinds: type[m.Message], **more: Any) -> None:
        """``kinds``: messages to subscribe to besides birth and status. ``more``: see `RemoteRun`."""
        observed: tuple[type[m.Message], ...] = (m.AggregatorPresence, m.Status, *kinds)
        rows = [CHANNELS.carrying(kind) for kind in observed]
        super().__init__(reach, CHANNELS.filters(reach.prefix, rows), **more)
        self.born: m.AggregatorPresence | None = None
        """The newest birth, or the will that followed it."""
        self.status: m.Status | None = None
        self.live_at: float | None = None
        """When (monotonic seconds) ``status`` was published, null if that was before we subscribed."""

    @property
    def is_online(self) -> bool:
        """Whether the newest presence of the aggregator is a birth."""
        return self.born is not None and self.born.state == "online"

    def poll(self, timeout: float) -> None:
        """Takes the next thing that arrives, if one does within ``timeout`` seconds. Raises ``UserError``."""
        received = self.receive(timeout)
        if received is None:
            return
        if received.payload:
            message = self.read(received)
            if message is not None:
                self.on_message(message, received)
        elif received.topic == t.build(self.prefix, t.StatusTopic()):
            self.status = self.live_at = None

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Polls until ``condition`` holds; false after ``seconds`` in which it did not."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(left)
        return True

    def on_message(self, message: m.Message, received: mqtt.Received) -> None:
        """Keeps what is newer. Overridden for the messages of further subscriptions."""
        match message:
            case m.AggregatorPresence() if not is_stale_will(message, self.born):
                self.born = message
            case m.Status():
                self.status = message
                self.live_at = None if received.retain else time.monotonic()
