"""Takes edges whose kits are revoked out of the run. Pure."""

from __future__ import annotations

from fl_aggregator.round.effects import Refuse, SendReply, Transition
from fl_aggregator.round.events import KitsRevoked
from fl_aggregator.round.roster import REVOKED
from fl_aggregator.round.state import Run
from fl_shared.system.frozen import replace


def revoke(state: Run, event: KitsRevoked) -> Transition:
    """Takes edges whose kits are revoked for lost, with no time to return, and refuses them.

    An update that was accepted before counts. A list that is older than the last one changes nothing.
    """
    if event.number < state.revocations:
        return state, ()
    roster, replies = state.roster, []
    for name in event.clients:
        client = roster.get(name)
        if client is None or client.revoked:
            continue
        lost_at = event.now if client.present else client.lost_at
        unable = replace(
            client, lost_at=lost_at, unconfirmed=False, partition=None, manifest=None, examples=None,
            unable=REVOKED, revoked=True,
        )  # fmt: skip
        roster = roster.with_client(name, unable)
        replies.append(SendReply(name, client.session, Refuse("kit-revoked", f"edge {name}: {REVOKED}")))
    return replace(state, roster=roster, revocations=event.number), tuple(replies)
