"""Stops a run as its operator: sends the command, then waits until the run has ended."""

from __future__ import annotations

import time
from typing import Final

from fl_aggregator.tools.remote.command import REPEAT_INTERVAL, Commander, checked
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.protocol import messages as m

OFFLINE_WAIT: Final = 5.0
"""Seconds to wait for "offline" after the last status. From then on, the run can be resumed."""
RECONNECT_WAIT: Final = 6.0
"""Seconds to wait for an aggregator that went offline without a last status. It reconnects within 5 s."""


def stop(broker: BrokerAccess, requested_run: str | None, reason: str, timeout: float) -> str:
    """Stops the run that is online under the prefix, and returns the outcome as one line.

    ``requested_run``: the only run that may be stopped, null for any. Raises ``UserError`` if that run is not
    online or the aggregator does not obey, ``RunFailed`` if it has not ended within ``timeout`` seconds.
    """
    command = checked(m.Stop, requested_run, reason)
    with _RunStopper(broker) as stopper:
        run = stopper.find_run(requested_run)
        return stopper.stop_run(command.model_copy(update={"run": run}), timeout)


class _RunStopper(Commander):
    """Waits until the run that it stops has ended."""

    def stop_run(self, command: m.Stop, timeout: float) -> str:
        """Sends ``command`` until the run has ended, and returns the outcome as one line."""
        started = time.monotonic()
        next_request_at = started
        offline_since: float | None = None
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
            if self.answer is not None and not ended:
                self.accepted_text()
            if now >= next_request_at and not ended:
                self.send(command)
                next_request_at = now + REPEAT_INTERVAL
            self.poll(0.2)
        raise self.failure(command.run, f"stopped within {timeout:g} s ({self._last_status_text()})")

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
