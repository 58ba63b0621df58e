"""What the events of the two connections mean for the run."""

from __future__ import annotations

import logging
from typing import Final, assert_never

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.round import events as on
from fl_aggregator.server.fencing import Fence, check_subscribed
from fl_shared.errors import UserError
from fl_shared.mqtt import events as mqtt

LOG: Final = logging.getLogger(__name__)

WARNED_EVERY: Final = 16
"""Failed attempts to connect, one after the other, of which a line warns; of the first ones 1, 2, 4 and 8."""

ConnectionChange = mqtt.Connected | mqtt.Lost | mqtt.ConnectRefused | mqtt.Subscribed


def apply(
    connections: Connections, fence: Fence, name: str, change: ConnectionChange, now: float
) -> on.Disconnected | on.Reconnected | None:
    """Subscribes and publishes again where that is due, and returns what the state must know of the change.

    ``name``: of the connection. ``now``: run time in seconds. Raises ``UserError`` if the broker refuses a connection
    or a subscription, or if another aggregator has taken over.
    """
    match change:
        case mqtt.Connected() if name == "updates":
            connections.subscribe_to_updates()
        case mqtt.Connected():
            if fence.confirm():
                LOG.warning(
                    "connected to the broker again: publishing the run's state again, edges register again"
                )
                connections.begin_session()
                return on.Reconnected(now=now)
        case mqtt.Lost(reason=reason, failures=failures):
            if name == "updates":
                connections.updates_connection_lost()
            LOG.log(
                logging.WARNING if _is_worth_a_warning(failures) else logging.DEBUG,
                "lost the %s connection to the broker: %s; trying again, edges keep their updates",
                name,
                reason,
            )
            if name == "control" and failures == 0:
                return on.Disconnected(now=now)
        case mqtt.ConnectRefused(reason=reason):
            raise UserError(reason)
        case mqtt.Subscribed():
            check_subscribed(connections, change)
        case _:
            assert_never(change)
    return None


def _is_worth_a_warning(failures: int) -> bool:
    """Whether this attempt to connect again is named: the first ones, and then ever fewer, but one in 16."""
    return failures & (failures - 1) == 0 if failures < WARNED_EVERY else failures % WARNED_EVERY == 0
