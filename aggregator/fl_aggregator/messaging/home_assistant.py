"""Announces the run to Home Assistant as a device: one retained message, again when its edges or its metric change."""

from __future__ import annotations

import time
from typing import Final

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.monitoring.views import home_assistant
from fl_aggregator.round.roster import Roster
from fl_aggregator.round.state import Run
from fl_shared.protocol.home_assistant import discovery_topic

MIN_INTERVAL: Final = 5.0
"""Seconds between two announcements: edges often register at the same time."""


class HomeAssistantDevice:
    """The announcement of one run. ``discovery_prefix``: under which Home Assistant looks for it.

    ``with_buttons``: see `home_assistant.discovery`.
    """

    def __init__(
        self, connections: Connections, discovery_prefix: str, prefix: str, run: str, *, with_buttons: bool
    ) -> None:
        self._connections = connections
        self._topic = discovery_topic(discovery_prefix, prefix)
        self._prefix, self._run = prefix, run
        self._with_buttons = with_buttons
        self._looked_at = -MIN_INTERVAL
        self._roster: Roster | None = None
        self._payload = b""

    def publish_due(self, state: Run) -> None:
        """Publishes the message if it has changed. Not more often than every 5 s does it look."""
        now = time.monotonic()
        if state.roster is self._roster or now < self._looked_at + MIN_INTERVAL:
            return
        self._roster, self._looked_at = state.roster, now
        payload = home_assistant.discovery(
            self._prefix,
            self._run,
            state.settings.task,
            home_assistant.shown_edges(state),
            None if state.declared is None else state.primary,
            with_buttons=self._with_buttons,
        )
        if payload != self._payload:
            self._payload = payload
            self._connections.retain_outside(self._topic, payload)
