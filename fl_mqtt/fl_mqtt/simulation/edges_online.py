"""Waits for the edges of a simulation that is resumed.

Its run would otherwise count the seconds that their programs need to start, and close its open round without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from fl_aggregator.tools.remote.observer import Observer
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.system.text import names_text

LOG: Final = logging.getLogger(__name__)

MAX_WAIT: Final = 120.0
"""Seconds until the run continues without the edges that are not online."""
_POLL: Final = 0.2


def wait_for_edges(
    broker: BrokerAccess, names: Collection[str], has_ended: Callable[[], bool], timeout: float = MAX_WAIT
) -> None:
    """Waits until all edges ``names`` are online, or until their program has ended, for ``timeout`` seconds at most."""
    deadline = time.monotonic() + timeout
    with _Presences(broker) as observer:
        while missing := [name for name in names if name not in observer.online]:
            left = deadline - time.monotonic()
            if left <= 0:
                LOG.warning(
                    "after %g s, %d of %d edges are not online (%s); the run continues without them",
                    timeout,
                    len(missing),
                    len(names),
                    names_text(missing, 5),
                )
                return
            if has_ended():
                return
            observer.poll(min(left, _POLL))


class _Presences(Observer):
    def __init__(self, broker: BrokerAccess) -> None:
        super().__init__(broker, m.ClientPresence)
        self.online: set[str] = set()

    def on_message(self, message: m.Message, received: mqtt.Received) -> None:
        """See `Observer.on_message`."""
        super().on_message(message, received)
        if isinstance(message, m.ClientPresence):
            (self.online.add if message.state == "online" else self.online.discard)(message.client)
