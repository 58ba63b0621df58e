"""What a refused edge does: it stops, waits for a place or another run, or finds out how its weights differ."""

from __future__ import annotations

from typing import Final

from fl_edge.session.admission import is_foreign_run
from fl_edge.session.declining import RETRY_DELAY, end_if_data_are_wrong, has_declined, leave
from fl_edge.session.effects import LogNotice
from fl_edge.session.registration import load_partition, wait_to_register
from fl_edge.session.state import (
    AdmittedPhase,
    AwaitingPlace,
    Confirming,
    Declined,
    LoadedPartition,
    Loading,
    LoadingPartition,
    Session,
)
from fl_edge.session.transitions import Transition, retry_delay, stop, then, transition
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace

FINAL_REFUSALS: Final[frozenset[m.RefusalReason]] = frozenset(
    {"id-in-use", "wrong-role", "kit-expired", "kit-revoked", "bad-run-keys"}
)
"""The refusals after which the edge stops, since only a person can change their cause."""


def refused(session: Session, reply: m.Refused, now: float) -> Transition:
    """Lets the edge wait for another run, unless a foreign run refuses it, or for a place in this one.

    After one of the `FINAL_REFUSALS` it stops with exit code 2. If its weights are not those of the run, it first finds
    out how they differ.
    """
    if is_foreign_run(session, reply.run):
        return transition(session)
    if reply.reason in FINAL_REFUSALS:
        refused_by = f"refused by run {reply.run}: {reply.reason}"
        return stop(session, 2, f"{refused_by}: {reply.detail}", told=refused_by)
    phase = session.registration
    if isinstance(phase, Declined) and has_declined(session, reply):
        return end_if_data_are_wrong(replace(session, registration=replace(phase, due=None)))
    if reply.reason == "no-partition-left":
        if isinstance(phase, AwaitingPlace):
            return transition(session)
        step = leave(session, reply, f"{reply.reason}: {reply.detail}", awaits="a place in it")
        return then(step, lambda s: wait_to_register(s, AwaitingPlace, now, 0))
    if reply.reason == "wrong-manifest" and isinstance(phase, AdmittedPhase):
        return _compare_weights(session, phase, reply, now)
    return leave(session, reply, f"{reply.reason}: {reply.detail}")


def _compare_weights(session: Session, phase: AdmittedPhase, reply: m.Refused, now: float) -> Transition:
    """Loads the data again, and compares the edge's weights with those of the run.

    Until the run has a model, nobody knows them. So the edge registers again and again.
    """
    state, retained = session.partition_state, session.own_retained_messages()
    if isinstance(state, LoadingPartition):
        return transition(session)  # it is comparing them
    if isinstance(state, LoadedPartition):
        if reply.weights is not None and state.manifest != reply.weights.digest:
            session = replace(session, registration=Loading(phase.connection))
            return load_partition(session, state.task, state.partition, 0, reply.weights)
        if reply.weights is None and (retained is None or retained.announced is None):
            if isinstance(phase, Confirming):
                return transition(session)
            due = now + retry_delay(session.identity.client, 0, RETRY_DELAY)
            notice = LogNotice("its weights are not those of the run; asking how they differ")
            return transition(replace(session, registration=Confirming(phase.connection, 0, due)), notice)
    return leave(session, reply, f"{reply.reason}: {reply.detail}")
