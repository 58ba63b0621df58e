"""The warning that two machines use one id."""

from __future__ import annotations

import logging
from typing import Final

from fl_aggregator.round import events as on
from fl_aggregator.round.roster import Client
from fl_aggregator.round.state import Run
from fl_aggregator.round.two_machines import TWO_MACHINES, are_two

LOG: Final = logging.getLogger(__name__)


def log_two_machines(event: on.Event, before: Run, state: Run) -> None:
    """Warns once of an edge that is found to be two machines; ``before``, ``state``: see `notices.log_presence`."""
    match event:
        case on.Registered(client=name):
            pass
        case on.UpdateStored(update=update):
            name = update.client
        case _:
            return
    was, client = before.roster.get(name), state.roster.get(name)
    if was is None or client is None or not are_two(client) or are_two(was):
        return
    other = was if was.session != client.session else client
    LOG.warning(
        "edge %s: %s (device %s): session %s%s and session %s%s take turns; stop one of them, delete its state "
        "directory, and give it an id of its own",
        name,
        TWO_MACHINES,
        client.device,
        client.session,
        _machine(state, client),
        client.earlier,
        _machine(state, other),
    )


def _machine(state: Run, client: Client) -> str:
    machine = None if client.environment is None else state.environments[client.environment].machine
    return f" ({machine})" if machine else ""
