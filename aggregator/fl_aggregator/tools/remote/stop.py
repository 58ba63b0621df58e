"""Stops a run as its operator: publishes a message on ``fl/control``, then waits until the run has ended."""

from __future__ import annotations

import time
from datetime import UTC, datetime
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


def stop(broker: BrokerAccess, requested_run: str | None, reason: str, timeout: float) -> str:
    """Stops the run that is online under the prefix, and returns the outcome as one line.

    ``requested_run``: the only run that may be stopped, null for any. Raises ``UserError`` if that run is not
    online, ``RunFailed`` if it has not ended within ``timeout`` seconds.
    """
    try:
        m.Control(run=requested_run or "any", reason=reason)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("run",):
            raise UserError(
                f"--run {requested_run!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
            ) from None
        raise UserError(
            f"--reason: {len(reason)} characters, expected at most 200 without control characters"
        ) from None
    with _RunStopper(broker) as stopper:
        run = stopper.find_run(requested_run)
        return stopper.stop_run(m.Control(run=run, reason=reason), timeout)


class _RunStopper(Observer):
    """Finds the run that is online, and stops it."""

    def __init__(self, broker: BrokerAccess) -> None:
        super().__init__(broker)
        if broker.kit is not None:
            broker.kit.check_voucher(datetime.now(UTC))
        self._sealer = None if broker.kit is None else broker.kit.sealer()

    def find_run(self, requested_run: str | None) -> str:
        """The name of the run that is online. Raises ``UserError`` if none is, or if it is not ``requested_run``."""
        if not self.wait_for(lambda: self.subscribed, ANSWER_WAIT):
            raise RunFailed(f"{self.address} has not answered within {ANSWER_WAIT:g} s")
        self.wait_for(self._is_known, BIRTH_WAIT)
        presence = self.born
        if presence is None or presence.state == "offline":
            last = "" if presence is None else f"; the last one, {presence.run}, is offline"
            raise UserError(f"no run is online {self.where}{last}")
        if requested_run not in (None, presence.run):
            raise UserError(f"--run {requested_run}: the run that is online {self.where} is {presence.run}")
        return presence.run

    def _is_known(self) -> bool:
        born, status = self.born, self.status
        return born is not None and status is not None and status.run == born.run

    def stop_run(self, command: m.Control, timeout: float) -> str:
        """Sends ``command`` until the run has ended, and returns the outcome as one line."""
        started = time.monotonic()
        next_request_at = started
        offline_since: float | None = None
        topic = t.build(self.prefix, t.ControlTopic())
        while (now := time.monotonic()) < started + timeout:
            presence, ended = self.born, self._has_ended(command.run)
            assert presence is not None
            if presence.run != command.run:
                return f"run {command.run} stopped; run {presence.run} is online now"
            is_offline = presence.state == "offline"
            offline_since = (offline_since or now) if is_offline or ended else None
            if offline_since is not None and ended and (is_offline or now - offline_since > OFFLINE_WAIT):
                return f"run {command.run} stopped ({self._last_status_text()})"
            if offline_since is not None and now - offline_since > RECONNECT_WAIT:
                last = self._last_status_text()
                return f"run {command.run}: its aggregator is offline and did not report the end ({last})"
            if now >= next_request_at and not ended:
                # For this incarnation only: a copy of the message must not stop the run after a resume.
                payload = codec.encode(command.model_copy(update={"incarnation": presence.incarnation}))
                self.publish(topic, payload if self._sealer is None else self._sealer.seal(topic, payload))
                next_request_at = now + REPEAT_INTERVAL
            self.poll(0.2)
        raise RunFailed(
            f"run {command.run} has not stopped within {timeout:g} s ({self._last_status_text()}): "
            f"is its aggregator still running, and may this account write to {topic}?"
        )

    def _has_ended(self, run: str) -> bool:
        status, presence = self.status, self.born
        # When a run is resumed, the last status of its incarnation before is still retained.
        is_current = (
            status is not None
            and presence is not None
            and (status.run, status.incarnation) == (run, presence.incarnation)
        )
        return is_current and status is not None and status.phase in m.FINAL_PHASES

    def _last_status_text(self) -> str:
        status = self.status
        if status is None:
            return "no status received"
        number = "" if status.round is None else f", round {status.round}"
        version = f"version {status.version or 0} of {status.rounds}"
        return f"last status: {status.phase}{number}, {version}, {status.written}"
