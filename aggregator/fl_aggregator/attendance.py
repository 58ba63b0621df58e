"""What the log says of who came and who went, and what the run does about it."""

from __future__ import annotations

import logging
from typing import Final

from fl_aggregator.round import events as on
from fl_aggregator.round.state import Collecting, Run

LOG: Final = logging.getLogger(__name__)


def tell(event: on.Event, state: Run) -> None:
    """``state``: what ``event`` has made of it."""
    match event:
        case on.Registered(client=client, examples=None, roles=roles):
            LOG.debug("edge %s is here, to %s", client, ", ".join(roles))
        case on.Registered(client=client, examples=examples):
            LOG.debug("edge %s is ready, with %d examples", client, examples)
        case on.EdgeLost(client=client, session=session):
            known = state.roster.get(client)
            if known is not None and known.session == session and not known.present:
                LOG.info("edge %s is offline%s", client, _without(client, state))


def _without(client: str, state: Run) -> str:
    """What the open round does without an edge that it waits for."""
    phase = state.phase
    if not isinstance(phase, Collecting) or client not in phase.awaited:
        return ""
    grace = state.settings.grace
    back = f" unless it is back within {grace:g} s (--grace)" if grace else ""
    return f": round {phase.round} calls another one, or goes on without it{back}"
