"""Why an edge is missing: the same reason in a round and, of an edge with a ticket, in an asynchronous run."""

from __future__ import annotations

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Ticket
from fl_aggregator.round.roster import REVOKED, Client, Roster
from fl_aggregator.round.state import new_run
from fl_aggregator.round.summary import away_reason
from fl_shared.protocol.messages import ModelReference
from fl_shared.system.frozen import replace

LOST = Client(
    session="s", device="d", roles=("train",), encodings=("f32",), registered_at=0.0, partition=7, lost_at=2.0
)
TICKET = Ticket(round=1, base=ModelReference(version=1, digest="0" * 64), issued=1.0, deadline=60.0)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (LOST, "offline: for 3.0 s"),
        (replace(LOST, left="it was stopped"), "offline: for 3.0 s, left: it was stopped"),
        (replace(LOST, unable=REVOKED, revoked=True), f"offline: {REVOKED}"),
        (replace(LOST, unable=REVOKED), "offline: for 3.0 s"),
        (replace(LOST, lost_at=None), "deadline: no update within 4 s"),
    ],
)
def test_an_edge_with_a_ticket_is_away(client: Client, reason: str) -> None:
    state = replace(new_run(Settings()), roster=Roster({"7": client}))
    assert away_reason(state, "7", TICKET, 5.0) == reason
