"""Admits the edge to a run, whose reply says what it has missed (protocol, 4.4)."""

from __future__ import annotations

from fl_edge.session import charging, own_state, unmasking
from fl_edge.session.declining import decline, has_declined
from fl_edge.session.effects import DropRunKeys, LogNotice, MakeRunKeys
from fl_edge.session.policy import problem_of_task, problem_of_update
from fl_edge.session.registration import (
    confirm,
    examples_text,
    load_partition,
    told_examples,
    wait_to_register,
)
from fl_edge.session.state import (
    AwaitingPartition,
    Confirming,
    LoadedPartition,
    Loading,
    LoadingPartition,
    Membership,
    NoPartition,
    RegistrationComplete,
    Session,
)
from fl_edge.session.transitions import Transition, cancel_evaluation, cancel_work, discreet, then, transition
from fl_edge.session.work import Answering, Calm, Fetching, Idle, Reporting, Training
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import is_survey, task_name
from fl_shared.system.frozen import replace


def is_foreign_run(session: Session, run: str) -> bool:
    """Whether the edge belongs to another run, and has not seen the birth of this one (protocol, 4.3)."""
    membership, aggregator = session.membership, session.aggregator
    return membership is not None and run != membership.run and (aggregator is None or aggregator.run != run)


def admitted(session: Session, reply: m.Admitted, now: float) -> Transition:
    """Makes the edge a member of the run that admits it, and continues its registration and its work.

    A foreign run and an earlier incarnation are ignored, and a run that the edge has declined. If the edge
    cannot or must not train the run's task, it declines.
    """
    membership, identity = session.membership, session.identity
    if is_foreign_run(session, reply.run) or has_declined(session, reply):
        return transition(session)
    if membership and reply.run == membership.run and reply.incarnation < membership.incarnation:
        return transition(session)
    if not identity.has_task(reply.task):
        if ":" in (name := task_name(reply.task)):
            why = f"it is a class, which only the edge's user may name: --task {name}"
        else:
            why = "it has: " + ", ".join(
                (*identity.tasks, *(f"{family}N" for family in identity.task_prefixes))
            )
        return decline(session, reply, f"no task {reply.task!r} here; {why}", now)
    if identity.requires_other_task(reply.task):
        return decline(session, reply, f"its --task is {identity.task!r}, not {reply.task!r}", now)
    if problem := problem_of_task(identity, reply.task):
        return decline(session, reply, problem, now)
    owes = session.pending_update() is not None or not isinstance(session.unmasking, Calm)
    if identity.trains and not owes and (problem := charging.spent(session)):
        return decline(session, reply, problem, now)
    step = transition(session)
    if membership is None or reply.run != membership.run:
        step = then(
            step,
            cancel_work,
            cancel_evaluation,
            lambda s: transition(replace(s, last_handled_round=-1, last_answered_round=-1)),
            _read_anew,
        )
    return then(
        step,
        lambda s: transition(replace(s, membership=_membership_of(reply, membership))),
        lambda s: _settle_run_keys(s, reply),
        lambda s: _resume_restored_update(s, reply, now),
        lambda s: _end_work_on_another_partition(s, membership),
        lambda s: _end_finished_round(s, reply),
        lambda s: _end_passed_round(s, reply),
        lambda s: own_state.settle_by_admission(s, membership, reply),
        lambda s: _forget_lost_rounds(s, reply),
        lambda s: _continue_registration(s, session, reply, now),
    )


def _read_anew(session: Session) -> Transition:
    """Forgets what was loaded for another run: the data may have changed since. A region's edges see to theirs."""
    if isinstance(session.partition_state, LoadedPartition) and session.identity.edges is None:
        session = replace(session, partition_state=NoPartition())
    return transition(session)


def _membership_of(reply: m.Admitted, before: Membership | None) -> Membership:
    was_private = before is not None and before.run == reply.run and before.private  # no word takes that back
    private = reply.private or was_private
    return Membership(reply.run, reply.incarnation, reply.task, reply.partition, reply.masked, private)


def _settle_run_keys(session: Session, reply: m.Admitted) -> Transition:
    """Has keys made for a masked run; those of another run are deleted, and nothing is answered for it any more."""
    state, kept = session.unmasking, session.masked_run
    is_other = isinstance(state, Answering) and state.asked.run != reply.run
    step = unmasking.ended(session) if is_other else transition(session)
    if kept is not None and kept.run == reply.run:
        return step
    if reply.masked and session.identity.trains and session.identity.edges is None:
        return then(step, lambda s: transition(replace(s, masked_run=None), MakeRunKeys(reply.run)))
    if kept is not None:
        return then(step, lambda s: transition(replace(s, masked_run=None), DropRunKeys()))
    return step


def _resume_restored_update(session: Session, reply: m.Admitted, now: float) -> Transition:
    """Reports the update that an earlier process of this edge finished, if its run has admitted the edge.

    It is dropped if it is of another run, or if the edge would not make it now.
    """
    pending = session.restored_update
    if pending is None:
        return transition(session)
    session = replace(session, restored_update=None)
    if pending.selected.run != reply.run or not session.identity.trains:
        return transition(session)
    number = pending.selected.round
    if problem := problem_of_update(session, pending.selected, pending.update):
        text = f"round {number}: its update was finished before the restart, and is dropped: {problem}"
        return transition(session, LogNotice(text, "warning"))
    notice = LogNotice.of_no_data(f"round {number}: its update was finished before the restart")
    update = pending.update
    was_discreet = pending.selected.privacy is not None  # it says no more than it may
    if session.is_discreet and (session.identity.privacy.is_asked or not was_discreet):
        update = discreet(update, pending.selected, None)
    work = Reporting(pending.selected, update, None, 0, now)
    return transition(
        replace(session, work=work, last_handled_round=max(session.last_handled_round, number - 1)), notice
    )


def _end_work_on_another_partition(session: Session, before: Membership | None) -> Transition:
    """Ends training on another partition than the edge has now. A finished update stays, since it is answered."""
    membership = session.membership
    match session.work:
        case Fetching(selected=selected) | Training(selected=selected) if (
            before is not None and membership is not None and before.partition != membership.partition
        ):
            notice = LogNotice.of_no_data(f"round {selected.round}: stopped: the edge has another partition")
            return then(cancel_work(session), lambda s: transition(s, notice))
        case _:
            return transition(session)


def _end_finished_round(session: Session, reply: m.Admitted) -> Transition:
    """Ends the work of round ``finished_round``: the aggregator has its update, or takes none any more.

    The update is neither sent nor trained again.
    """
    if reply.finished_round is None:
        return transition(session)
    session = session.answered(reply.finished_round)
    if isinstance(session.work, Idle) or session.work.selected.round != reply.finished_round:
        return transition(session)
    notice = LogNotice.of_no_data(
        f"round {reply.finished_round}: the aggregator no longer needs this edge's update"
    )
    return then(cancel_work(session), lambda s: transition(s, notice))


def _end_passed_round(session: Session, reply: m.Admitted) -> Transition:
    """Ends training for a round that was over before the newest one: its result is perhaps no longer retained.

    A finished update stays, since it is answered.
    """
    match session.work:
        case Fetching(selected=selected) | Training(selected=selected) if (
            not selected.ticket and reply.newest_round is not None and selected.round < reply.newest_round
        ):
            last = max(session.last_handled_round, selected.round)
            notice = LogNotice.of_no_data(f"round {selected.round}: stopped: the round has ended")
            step = cancel_work(replace(session, last_handled_round=last))
            return then(step, lambda s: transition(s, notice))
        case _:
            return transition(session)


def _forget_lost_rounds(session: Session, reply: m.Admitted) -> Transition:
    """Takes part again in rounds that the aggregator has lost, for example with its disk's cache (reliability, 1.11).

    Otherwise the edge would take a repeated round for one that it has had.
    """
    newest = reply.newest_round
    if newest is None:
        return transition(session)
    last = newest - 1 if reply.awaited else newest
    session = replace(
        session,
        last_handled_round=min(session.last_handled_round, last),
        last_answered_round=min(session.last_answered_round, last),
    )
    if isinstance(session.work, Idle) or session.work.selected.round <= newest:
        return transition(session)
    number = session.work.selected.round
    notice = LogNotice.of_no_data(
        f"round {number}: the aggregator no longer knows this round; its update is dropped", "warning"
    )
    return then(cancel_work(session), lambda s: transition(s, notice))


def _continue_registration(session: Session, before: Session, reply: m.Admitted, now: float) -> Transition:
    """Does what follows an admission: loading, the second registration, or nothing more."""
    connection, state, partition, previous_phase = (
        session.connection,
        session.partition_state,
        reply.partition,
        before.registration,
    )
    assert connection is not None
    prefix = f"admitted to run {reply.run} ({reply.task})"
    if not session.identity.trains:
        session = replace(session, registration=RegistrationComplete(connection))
        return (
            transition(session)
            if isinstance(previous_phase, RegistrationComplete)
            else transition(session, LogNotice.of_no_data(prefix))
        )
    if partition is None:
        if isinstance(previous_phase, AwaitingPartition):
            return wait_to_register(session, AwaitingPartition, now, previous_phase.attempt)
        notice = LogNotice.of_no_data(f"{prefix}; data will be assigned when the run starts")
        return then(transition(session, notice), lambda s: wait_to_register(s, AwaitingPartition, now, 0))
    if isinstance(state, NoPartition) or (state.task, state.partition) != (reply.task, partition):
        part = f"partition {partition.index} of {partition.count}"
        data = "its own data" if partition.scheme == "own" else part
        notice = LogNotice.of_no_data(f"{prefix} with {data}")
        return then(
            transition(session, notice),
            lambda s: load_partition(s, reply.task, partition, 0),
            lambda s: transition(replace(s, registration=Loading(connection))),
        )
    if isinstance(state, LoadingPartition):
        return transition(replace(session, registration=Loading(connection)))
    if before.membership != session.membership or not isinstance(
        previous_phase, Confirming | RegistrationComplete
    ):
        return confirm(session, now, 0)
    if isinstance(previous_phase, Confirming) and reply.examples != told_examples(session, state):
        return transition(session)  # a late or repeated answer to the first registration
    session = replace(session, registration=RegistrationComplete(connection))
    if isinstance(previous_phase, RegistrationComplete):
        return transition(session)
    examples = "" if is_survey(state.task) else f" with {examples_text(state)}"
    return transition(session, LogNotice(f"registered for run {reply.run}{examples}"))
