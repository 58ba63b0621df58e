"""Ends a run from afar, as its operator: a message on ``fl/control``, and then watching what becomes of it."""

from __future__ import annotations

import queue
import time
from typing import Final

from pydantic import ValidationError

from fl_aggregator.tools.remote.observer import CONNECT_TIMEOUT, Lookout
from fl_shared.cli.broker_access import BrokerReach
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import BIRTH_WAIT

ANSWER_WAIT: Final = 5.0
REPEAT_EVERY: Final = 2.0
GOODBYE_WAIT: Final = 5.0
"""From the last status to the farewell, after which the run's directory is free to be taken up again."""
BLINK: Final = 6.0
"""An aggregator that is offline without a last status may be back: its connection is tried again within 5 s."""


def stop(broker: BrokerReach, wanted: str | None, reason: str, timeout: float) -> str:
    """Ends the run that is online under the prefix (``wanted``, or whichever); says what became of it.

    Raises ``UserError`` if there is no such run, ``RunFailed`` if it has not ended within ``timeout`` seconds.
    """
    try:
        m.Control(run=wanted or "any", reason=reason)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("run",):
            raise UserError(f"--run {wanted!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -") from None
        raise UserError(
            f"--reason: {len(reason)} characters, expected at most 200 without control characters"
        ) from None
    inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
    with Network("fl-stop") as network:
        connection = network.connect(broker.connection(), inbox.put)
        connection.wait_connected(CONNECT_TIMEOUT, once=True)
        watch = _Watch(connection, inbox, broker)
        run = watch.find(str(broker.address), wanted)
        return watch.end(m.Control(run=run, reason=reason), timeout)


class _Watch:
    """What is heard of the run on ``fl/aggregator`` and ``fl/status``."""

    def __init__(
        self, connection: Connection, inbox: queue.SimpleQueue[mqtt.Event], broker: BrokerReach
    ) -> None:
        self._connection = connection
        self._prefix = broker.prefix
        self._run = Lookout(connection, inbox, broker.prefix, broker.kit)
        self._sealer = None if broker.kit is None else broker.kit.sealer()

    def find(self, broker: str, wanted: str | None) -> str:
        """Which run is online."""
        deadline = time.monotonic() + ANSWER_WAIT
        while (now := time.monotonic()) < deadline:
            before = self._run.answered
            self._run.hear(deadline - now)
            if self._run.answered and not before:
                deadline = min(deadline, time.monotonic() + BIRTH_WAIT)
            if (
                self._run.born is not None
                and self._run.status is not None
                and self._run.status.run == self._run.born.run
            ):
                break
        born = self._run.born
        where = f"under the prefix {self._prefix!r} at {broker}"
        if not self._run.answered:
            raise RunFailed(f"{broker} has not answered within {ANSWER_WAIT:g} s")
        if born is None or born.state == "offline":
            last = "" if born is None else f"; the last one, {born.run}, is offline"
            raise UserError(f"no run is online {where}{last}")
        if wanted not in (None, born.run):
            raise UserError(f"--run {wanted}: the run that is online {where} is {born.run}")
        return born.run

    def end(self, order: m.Control, timeout: float) -> str:
        """Asks for the end until it comes; says how it did."""
        begun = time.monotonic()
        ask_at = begun
        silent_since: float | None = None
        topic = t.build(self._prefix, t.ControlTopic())
        while (now := time.monotonic()) < begun + timeout:
            born, over = self._run.born, self._is_over(order.run)
            assert born is not None
            if born.run != order.run:
                return f"run {order.run} stopped; run {born.run} is online now"
            gone = born.state == "offline"
            silent_since = (silent_since or now) if gone or over else None
            if silent_since is not None and over and (gone or now - silent_since > GOODBYE_WAIT):
                return f"run {order.run} stopped ({self._last()})"
            if silent_since is not None and now - silent_since > BLINK:
                return (
                    f"run {order.run}: its aggregator is offline and did not report the end ({self._last()})"
                )
            if now >= ask_at and not over:
                # Of this start only: said again by somebody else, it must not end the run when it is taken up.
                payload = codec.encode(order.model_copy(update={"epoch": born.epoch}))
                self._connection.publish(
                    topic, payload if self._sealer is None else self._sealer.seal(topic, payload)
                )
                ask_at = now + REPEAT_EVERY
            self._run.hear(0.2)
        raise RunFailed(
            f"run {order.run} has not stopped within {timeout:g} s ({self._last()}): "
            f"is its aggregator still running, and may this account write to {topic}?"
        )

    def _is_over(self, run: str) -> bool:
        status, born = self._run.status, self._run.born
        # A run that was taken up again begins with the last word of its epoch before still retained.
        now = status is not None and born is not None and (status.run, status.epoch) == (run, born.epoch)
        return now and status is not None and status.phase in m.OVER

    def _last(self) -> str:
        status = self._run.status
        if status is None:
            return "no status received"
        number = "" if status.round is None else f", round {status.round}"
        version = f"version {status.version or 0} of {status.rounds}"
        return f"last status: {status.phase}{number}, {version}, {status.written}"
