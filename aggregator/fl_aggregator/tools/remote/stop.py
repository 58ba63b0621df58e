"""Stops a run as its operator: publishes a message on ``fl/control``, then waits until the run has ended."""

from __future__ import annotations

import time
from typing import Final

from pydantic import ValidationError

from fl_aggregator.tools.remote.observer import Observer
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import ANSWER_WAIT, BIRTH_WAIT

REPEAT_INTERVAL: Final = 2.0
OFFLINE_WAIT: Final = 5.0
"""Seconds to wait for "offline" after the last status. From then on, the run can be resumed."""
RECONNECT_WAIT: Final = 6.0
"""Seconds to wait for an aggregator that went offline without a last status. It reconnects within 5 s."""


def stop(broker: BrokerAccess, wanted: str | None, reason: str, timeout: float) -> str:
    """Stops the run that is online under the prefix, and returns the outcome as one line.

    ``wanted``: the only run that may be stopped, null for any. Raises ``UserError`` if that run is not
    online, ``RunFailed`` if it has not ended within ``timeout`` seconds.
    """
    try:
        m.Control(run=wanted or "any", reason=reason)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("run",):
            raise UserError(f"--run {wanted!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -") from None
        raise UserError(
            f"--reason: {len(reason)} characters, expected at most 200 without control characters"
        ) from None
    with _RunStopper(broker) as watch:
        run = watch.find_run(wanted)
        return watch.stop_run(m.Control(run=run, reason=reason), timeout)


class _RunStopper(Observer):
    """Finds the run that is online, and stops it."""

    def __init__(self, broker: BrokerAccess) -> None:
        super().__init__(broker)
        self._sealer = None if broker.kit is None else broker.kit.sealer()

    def find_run(self, wanted: str | None) -> str:
        """The name of the run that is online. Raises ``UserError`` if none is, or if it is not ``wanted``."""
        if not self.wait_for(lambda: self.subscribed, ANSWER_WAIT):
            raise RunFailed(f"{self.address} has not answered within {ANSWER_WAIT:g} s")
        self.wait_for(self._is_known, BIRTH_WAIT)
        born = self.born
        if born is None or born.state == "offline":
            last = "" if born is None else f"; the last one, {born.run}, is offline"
            raise UserError(f"no run is online {self.where}{last}")
        if wanted not in (None, born.run):
            raise UserError(f"--run {wanted}: the run that is online {self.where} is {born.run}")
        return born.run

    def _is_known(self) -> bool:
        born, status = self.born, self.status
        return born is not None and status is not None and status.run == born.run

    def stop_run(self, order: m.Control, timeout: float) -> str:
        """Sends ``order`` until the run has ended, and returns the outcome as one line."""
        begun = time.monotonic()
        ask_at = begun
        silent_since: float | None = None
        topic = t.build(self.prefix, t.ControlTopic())
        while (now := time.monotonic()) < begun + timeout:
            born, over = self.born, self._has_ended(order.run)
            assert born is not None
            if born.run != order.run:
                return f"run {order.run} stopped; run {born.run} is online now"
            gone = born.state == "offline"
            silent_since = (silent_since or now) if gone or over else None
            if silent_since is not None and over and (gone or now - silent_since > OFFLINE_WAIT):
                return f"run {order.run} stopped ({self._last_status_text()})"
            if silent_since is not None and now - silent_since > RECONNECT_WAIT:
                last = self._last_status_text()
                return f"run {order.run}: its aggregator is offline and did not report the end ({last})"
            if now >= ask_at and not over:
                # For this incarnation only: a copy of the message must not stop the run after a resume.
                payload = codec.encode(order.model_copy(update={"incarnation": born.incarnation}))
                self.publish(topic, payload if self._sealer is None else self._sealer.seal(topic, payload))
                ask_at = now + REPEAT_INTERVAL
            self.poll(0.2)
        raise RunFailed(
            f"run {order.run} has not stopped within {timeout:g} s ({self._last_status_text()}): "
            f"is its aggregator still running, and may this account write to {topic}?"
        )

    def _has_ended(self, run: str) -> bool:
        status, born = self.status, self.born
        # When a run is resumed, the last status of its incarnation before is still retained.
        now = (
            status is not None
            and born is not None
            and (status.run, status.incarnation) == (run, born.incarnation)
        )
        return now and status is not None and status.phase in m.FINAL_PHASES

    def _last_status_text(self) -> str:
        status = self.status
        if status is None:
            return "no status received"
        number = "" if status.round is None else f", round {status.round}"
        version = f"version {status.version or 0} of {status.rounds}"
        return f"last status: {status.phase}{number}, {version}, {status.written}"
