"""Ends a run from afar, as its operator: a message on ``fl/control``, and then watching what becomes of it."""

from __future__ import annotations

import logging
import queue
import time
from typing import Final

from pydantic import ValidationError

from fl_aggregator.links import BrokerSettings
from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.errors import RunFailed, UserError

LOG: Final = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 6.0
"""An attempt has 5 s, and then a reason."""
ANSWER_WAIT: Final = 5.0
BIRTH_WAIT: Final = 0.3
"""A retained birth follows the answer to SUBSCRIBE at once."""
REPEAT_EVERY: Final = 2.0
GOODBYE_WAIT: Final = 5.0
"""From the last status to the farewell, after which the run's directory is free to be taken up again."""
BLINK: Final = 6.0
"""An aggregator that is offline without a last status may be back: its connection is tried again within 5 s."""
_OVER: Final = ("interrupted", "finished", "failed")


def stop(broker: BrokerSettings, prefix: str, wanted: str | None, reason: str, timeout: float) -> str:
    """Ends the run that is online under ``prefix`` (``wanted``, or whichever); says what became of it.

    Raises ``UserError`` if there is no such run, ``RunFailed`` if it has not ended within ``timeout`` seconds.
    """
    try:
        m.Control(run=wanted or "any", reason=reason)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("run",):
            raise UserError(f"--run {wanted!r}: expected 1 to 64 of A-Z a-z 0-9 _ -") from None
        raise UserError(
            f"--reason: {len(reason)} characters, expected at most 200, none of them a control character"
        ) from None
    inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
    with mqtt.Network("fl-stop") as network:
        connection = network.connect(broker.connection(), inbox.put)
        connection.wait_connected(CONNECT_TIMEOUT, once=True)
        watch = _Watch(connection, inbox, prefix)
        run = watch.find(str(broker.address), wanted)
        return watch.end(m.Control(run=run, reason=reason), timeout)


class _Watch:
    """What is heard of the run on ``fl/aggregator`` and ``fl/status``."""

    def __init__(
        self, connection: mqtt.Connection, inbox: queue.SimpleQueue[mqtt.Event], prefix: str
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._prefix = prefix
        self._born: m.AggregatorPresence | None = None
        self._status: m.Status | None = None
        self._answered = False

    def find(self, broker: str, wanted: str | None) -> str:
        """Which run is online."""
        deadline = time.monotonic() + ANSWER_WAIT
        while (now := time.monotonic()) < deadline:
            before = self._answered
            self._hear(deadline - now)
            if self._answered and not before:
                deadline = min(deadline, time.monotonic() + BIRTH_WAIT)
            if self._born is not None and self._status is not None and self._status.run == self._born.run:
                break
        born = self._born
        where = f"under the prefix {self._prefix!r} at {broker}"
        if not self._answered:
            raise RunFailed(f"{broker} has not answered within {ANSWER_WAIT:g} s")
        if born is None or born.state == "offline":
            last = "" if born is None else f"; the last one, {born.run}, is offline"
            raise UserError(f"no run is online {where}{last}")
        if wanted not in (None, born.run):
            raise UserError(f"--run {wanted}: it is run {born.run} that is online {where}")
        return born.run

    def end(self, order: m.Control, timeout: float) -> str:
        """Asks for the end until it comes; says how it did."""
        begun = time.monotonic()
        ask_at = begun
        silent_since: float | None = None
        topic = t.build(self._prefix, t.ControlTopic())
        while (now := time.monotonic()) < begun + timeout:
            born, over = self._born, self._is_over(order.run)
            assert born is not None
            if born.run != order.run:
                return f"run {order.run} has ended; run {born.run} is online now"
            gone = born.state == "offline"
            silent_since = (silent_since or now) if gone or over else None
            if silent_since is not None and over and (gone or now - silent_since > GOODBYE_WAIT):
                return f"run {order.run} has ended: {self._last()}"
            if silent_since is not None and now - silent_since > BLINK:
                return f"run {order.run}: its aggregator is gone without a last word ({self._last()})"
            if now >= ask_at and not over:
                self._connection.publish(topic, codec.encode(order))
                ask_at = now + REPEAT_EVERY
            self._hear(0.2)
        raise RunFailed(
            f"run {order.run} has not ended within {timeout:g} s ({self._last()}): "
            f"does its aggregator live, and may this account write to {topic}?"
        )

    def _is_over(self, run: str) -> bool:
        status, born = self._status, self._born
        # A run that was taken up again begins with the last word of its epoch before still retained.
        now = status is not None and born is not None and (status.run, status.epoch) == (run, born.epoch)
        return now and status is not None and status.phase in _OVER

    def _last(self) -> str:
        status = self._status
        if status is None:
            return "it has never said how it is"
        number = "" if status.round is None else f", round {status.round}"
        return f"last status: {status.phase}{number}, version {status.version} of {status.rounds}, {status.written}"

    def _hear(self, timeout: float) -> None:
        try:
            event = self._inbox.get(timeout=max(0.01, timeout))
        except queue.Empty:
            return
        match event:
            case mqtt.Connected():
                names = (t.AggregatorTopic(), t.StatusTopic())
                self._connection.subscribe([(t.build(self._prefix, name), 1) for name in names])
            case mqtt.Subscribed(refused=()):
                self._answered = True
            case mqtt.Subscribed(refused=refused):
                raise UserError(
                    f"the broker does not let this account read {', '.join(refused)}: use the operator's"
                )
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Lost(reason=reason):
                LOG.warning("the connection to the broker is lost: %s; trying again", reason)
            case mqtt.Received():
                self._received(event)

    def _received(self, received: mqtt.Received) -> None:
        topic = t.parse(self._prefix, received.topic)
        if not isinstance(topic, t.AggregatorTopic | t.StatusTopic):
            return
        try:
            message = codec.decode(topic, received.payload)
        except codec.DecodeError:
            return
        match message:
            case m.AggregatorPresence(state="offline") if self._is_old_will(message):
                pass
            case m.AggregatorPresence():
                self._born = message
            case m.Status():
                self._status = message

    def _is_old_will(self, message: m.AggregatorPresence) -> bool:
        """Of a connection that is not the aggregator's newest: it says nothing."""
        born = self._born
        return born is not None and born.run == message.run and born.session != message.session
