"""Checks before a run begins whether another one is online under its prefix.

A retained birth may be an old one that the broker restored, and clocks differ: only a live status proves that
a run is active (protocol, 8.3).
"""

from __future__ import annotations

import logging
import time
from typing import Final

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox, StopRequest
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.limits import ANSWER_WAIT, BIRTH_WAIT, STATUS_WAIT
from fl_shared.security.verified import decode_verified

LOG: Final = logging.getLogger(__name__)


def ensure_unoccupied(
    connections: Connections, inbox: Inbox, scope: EnvelopeSource, prefix: str, broker: BrokerAddress
) -> None:
    """Raises ``UserError`` if another run is active under the prefix; waits up to 6 s for its status.

    We have published nothing yet, so any message is from another aggregator: of another run, or of the run
    that we are resuming (from a copy of its directory, say). Raises ``RunFailed`` if a stop is requested in
    the meantime.
    """
    seen_run: str | None = None
    deadline = time.monotonic() + ANSWER_WAIT
    while (remaining := deadline - time.monotonic()) > 0:
        item = inbox.get(remaining)
        if item is None:
            break
        match item[1]:
            case mqtt.Subscribed(refused=()):
                deadline = min(deadline, time.monotonic() + BIRTH_WAIT)
            case mqtt.Subscribed(refused=refused):
                raise UserError(
                    f"the broker does not allow the aggregator to read {', '.join(refused)}: check its rights"
                )
            case mqtt.Connected():
                connections.subscribe_for_occupancy()  # again: a new connection has no subscriptions
            case mqtt.ConnectRefused(reason=reason):
                raise UserError(reason)
            case StopRequest(reason=reason):
                raise RunFailed(reason)
            case AdmittedMessage(received=received):
                run = _run_announced_in(received, prefix)
                if run is not None and not received.retain:
                    advice = "" if run == scope.run else ", or give this one another --prefix"
                    raise UserError(
                        f"run {run} is online under the prefix {prefix!r} at {broker}: stop it{advice}"
                    )
                if run is not None and seen_run is None:
                    seen_run = run
                    LOG.info(
                        "run %s was online here; checking whether it is still running (%.0f s)",
                        run,
                        STATUS_WAIT,
                    )
                    deadline = time.monotonic() + STATUS_WAIT
            case _:
                pass
    if seen_run is not None:
        LOG.info("run %s does not respond; taking over", seen_run)


def _run_announced_in(received: mqtt.Received, prefix: str) -> str | None:
    match decode_verified(prefix, received, None):
        case m.AggregatorPresence(state="online", run=run) if received.retain:
            return run
        case m.Status(run=run) if not received.retain:
            return run
        case _:
            return None
