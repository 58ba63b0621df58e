"""Notices that two machines use one id with copies of one state directory. Pure.

A session is a new random name for each connection (protocol, 4.1), so an edge never returns to the session before its
newest one. Machines with copies of one state name the same device, so neither of them is refused; but both use their
sessions in turns. A message that another connection has overtaken may look like that once.
"""

from __future__ import annotations

from typing import Final

from fl_aggregator.round.roster import Client
from fl_aggregator.round.state import Run
from fl_shared.system.frozen import replace

TURNS: Final = 2
"""Returns to an earlier session from which on two machines are at work."""
TWO_MACHINES: Final = "two machines use this id with copies of one state directory"
"""What watchers are told."""


def are_two(client: Client) -> bool:
    """Whether two machines are known to use this id."""
    return client.turns >= TURNS


def turns_after(previous: Client | None, session: str, device: str) -> tuple[str | None, int]:
    """Returns the session before that of a registration, and how often the client has returned to an earlier one."""
    if previous is None or previous.device != device:
        return None, 0
    if previous.session == session:
        return previous.earlier, previous.turns
    return previous.session, previous.turns + (previous.earlier == session)


def heard(state: Run, name: str, session: str) -> Run:
    """Takes note of the session of an update."""
    client = state.roster.get(name)
    if client is None or are_two(client) or session != client.earlier:
        return state
    return replace(state, roster=state.roster.with_client(name, replace(client, turns=client.turns + 1)))
