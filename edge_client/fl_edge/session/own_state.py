"""What the edge keeps of a run counts only with the update that it came with (protocol, 5.16).

It is staged before that update is sent. Whether the update is in a version, the round's result says, or an admission
(``counted``): then what is staged replaces what counted so far, and otherwise it is dropped.
"""

from __future__ import annotations

from fl_edge.session.effects import DropState, PromoteState, StageState
from fl_edge.session.events import Trained
from fl_edge.session.state import Membership, Session
from fl_edge.session.transitions import Transition, then, transition
from fl_edge.session.work import StateReference
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace


def stage(session: Session, selected: m.Selected, event: Trained) -> Transition:
    """Stages what the training has left to keep, if it has."""
    if not event.own:
        return transition(session)
    reference = StateReference(selected.run, selected.round, event.update.digest, selected.ticket)
    session = replace(session, own_state=replace(session.own_state, staged=reference))
    return transition(session, StageState(reference, event.own))


def settle_by_result(session: Session, result: m.Result) -> Transition:
    """Decides on what is staged when its round has ended. It may be from before the start of this process."""
    staged = session.own_state.staged
    if staged is None or staged.run != result.run:
        return transition(session)
    if result.round != staged.round and not (staged.ticket and result.round > staged.round):
        return transition(session)
    if result.outcome == "committed" and session.identity.client in result.participants:
        return _promote(session, staged)
    # An update for a ticket may be in a later version.
    return transition(session) if staged.ticket else _drop(session, staged=True)


def settle_by_admission(session: Session, before: Membership | None, reply: m.Admitted) -> Transition:
    """Decides by what the aggregator has counted. ``before``: the membership before this reply.

    Of an earlier moment of the same incarnation, a late reply says nothing.
    """
    if session.own_state.personal is not None and session.own_state.personal.run != reply.run:
        session = replace(session, own_state=replace(session.own_state, personal=None))
        return then(
            transition(session, DropState(personal=True)), lambda s: settle_by_admission(s, before, reply)
        )
    own, counted, newest = session.own_state, reply.counted, reply.newest_round
    ours = [one.round for one in (own.current, own.staged) if one is not None and one.run == reply.run]
    known = before is not None and (before.run, before.incarnation) == (reply.run, reply.incarnation)
    if ours and (newest is None or (known and newest < max(ours))):
        return transition(session)
    staged, current = own.staged, own.current
    if staged is not None and _is_counted(staged, reply.run, counted):
        return _promote(session, staged)
    return _drop(
        session,
        staged=staged is not None and not _is_open(staged, reply),
        current=current is not None and not _is_counted(current, reply.run, counted),
    )


def drop_rejected(session: Session, digest: str | None) -> Transition:
    """Drops what was staged with an update that will not count."""
    staged = session.own_state.staged
    return _drop(session, staged=staged is not None and staged.digest == digest)


def is_undecided(session: Session, selected: m.Selected) -> bool:
    """Whether the edge has missed how the round of what is staged has ended, as a later one is open."""
    staged = session.own_state.staged
    return staged is not None and staged.run == selected.run and staged.round < selected.round


def _is_open(staged: StateReference, reply: m.Admitted) -> bool:
    """Whether nobody knows yet if an update that is not counted will be: in the newest round, or while it is buffered.

    An edge gets its next ticket when its last update is in a version, or will be in none.
    """
    if staged.run != reply.run:
        return False
    return staged.round == reply.newest_round or (staged.ticket and not reply.awaited)


def _is_counted(reference: StateReference, run: str, counted: m.CountedUpdate | None) -> bool:
    return (
        counted is not None
        and reference.run == run
        and (reference.round, reference.digest) == (counted.round, counted.digest)
    )


def _promote(session: Session, staged: StateReference) -> Transition:
    own = replace(session.own_state, current=staged, staged=None)
    return transition(replace(session, own_state=own), PromoteState())


def _drop(session: Session, *, staged: bool = False, current: bool = False) -> Transition:
    if not (staged or current):
        return transition(session)
    own = session.own_state
    left = replace(own, current=None if current else own.current, staged=None if staged else own.staged)
    return transition(replace(session, own_state=left), DropState(staged=staged, current=current))
