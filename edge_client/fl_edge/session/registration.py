"""Registering: being known to the aggregator, with a loaded part of the data (protocol, section 4)."""

from __future__ import annotations

from dataclasses import replace

from fl_edge.session.effects import Cancel, Load, Say, Send
from fl_edge.session.events import AggregatorSeen, Connected, JobFailed, PartLoaded, PresenceSeen
from fl_edge.session.state import (
    AwaitingPart,
    Confirming,
    Idle,
    Line,
    Loading,
    LoadingPart,
    Member,
    NoPart,
    Offline,
    Part,
    Registered,
    Registering,
    Reporting,
    Session,
)
from fl_edge.session.transitions import (
    Step,
    drop_appraisal,
    drop_work,
    numbered,
    pause,
    started,
    stay,
    stop,
    then,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t

FIRST_PAUSE = 1.0
"""Seconds before a registration is repeated."""
PART_PAUSE = 10.0
"""Seconds before it is asked again for a part that was promised."""
LOADS = 3
"""So often it is tried to load a part where a worker died, or the like."""


def connected(session: Session, event: Connected) -> Step:
    line = Line(event.session, event.largest)
    # What was heard of the aggregator on the last connection may have changed since.
    fresh = replace(session, link=Registering(line, 0, event.now), aggregator=None)
    return then(announce(fresh), lambda s: register(s, event.now, 0))


def announce(session: Session) -> Step:
    """The birth."""
    client = session.identity.client
    assert session.line is not None
    birth = m.ClientPresence(client=client, state="online", session=session.line.session)
    return stay(session, Send(t.PresenceTopic(client), birth, retain=True))


def register(session: Session, now: float, attempt: int) -> Step:
    """The first registration, which names no run."""
    who, line = session.identity, session.line
    assert line is not None
    session, seq = numbered(session)
    message = m.Registration(
        seq=seq,
        client=who.client,
        session=line.session,
        device=who.device,
        roles=who.roles,
        task=who.task,
        encodings=("f32",),
    )
    due = now + pause(who.client, attempt, FIRST_PAUSE)
    session = replace(session, link=Registering(line, attempt, due))
    return stay(session, Send(t.RegisterTopic(who.client), message))


def await_part(session: Session, now: float, attempt: int) -> Step:
    assert session.line is not None
    due = now + pause(session.identity.client, attempt, PART_PAUSE)
    return stay(replace(session, link=AwaitingPart(session.line, attempt, due)))


def confirm(session: Session, now: float, attempt: int) -> Step:
    """The second registration: which weights, and how many examples to train on."""
    who, line, part, member = session.identity, session.line, session.part, session.member
    assert line is not None
    assert member is not None
    assert isinstance(part, Part)
    session, seq = numbered(session)
    message = m.Registration(
        run=member.run,
        epoch=member.epoch,
        seq=seq,
        client=who.client,
        session=line.session,
        device=who.device,
        roles=who.roles,
        task=who.task,
        manifest=part.manifest,
        examples=part.examples,
        encodings=("f32",),
    )
    due = now + pause(who.client, attempt, FIRST_PAUSE)
    session = replace(session, link=Confirming(line, attempt, due))
    return stay(session, Send(t.RegisterTopic(who.client), message))


def repeat(session: Session, now: float) -> Step:
    """What is due of it."""
    match session.link:
        case Registering(attempt=attempt, due=due) if now >= due:
            return register(session, now, attempt + 1)
        case Confirming(attempt=attempt, due=due) if now >= due:
            return confirm(session, now, attempt + 1)
        case AwaitingPart(attempt=attempt, due=due) if now >= due:
            return then(register(session, now, 0), lambda s: await_part(s, now, attempt + 1))
        case _:
            return stay(session)


def aggregator_seen(session: Session, event: AggregatorSeen) -> Step:
    seen, known = event.presence, session.aggregator
    if seen.state == "offline":
        # The will of a session that is not the newest says nothing.
        if known is None or known.session == seen.session:
            return stay(replace(session, aggregator=seen))
        return stay(session)
    news = known is None or _start(known) != _start(seen) or known.state == "offline"
    session = replace(session, aggregator=seen)
    match session.link:
        case Offline():
            return stay(session)
        case Registering() if event.retained:
            # It was there before our registration, and will answer it.
            return stay(session)
        case _ if news and not (known is None and event.retained and session.admitted_as()):
            return register(session, event.now, 0)
        case _:
            return stay(session)


def _start(presence: m.AggregatorPresence) -> tuple[str, str, int]:
    return presence.session, presence.run, presence.epoch


def heard_from(session: Session, message: m.Scoped, now: float) -> Step:
    """A message of a later epoch of the own run shows a restart whose birth was missed."""
    member = session.member
    if member and message.run == member.run and message.epoch > member.epoch and session.admitted_as():
        return register(session, now, 0)
    return stay(session)


def presence_seen(session: Session, event: PresenceSeen) -> Step:
    """Says again that it is there, where an old will (or who left again) says otherwise.

    It does not argue with another session that is online: two would go on for ever.
    """
    if session.line is None:
        return stay(session)
    seen = event.presence
    if seen is None or (seen.state == "offline" and seen.client == session.identity.client):
        step = announce(session)
        if seen is not None and seen.session == session.line.session:
            # Not an old will: somebody has said of this very session that it is gone, and the aggregator believes it.
            return then(step, lambda s: register(s, event.now, 0))
        return step
    return stay(session)


def _of_another_run(session: Session, run: str) -> bool:
    """Whether a run speaks that this edge has nothing to do with: it has one, and has not seen the other's birth."""
    member, born = session.member, session.aggregator
    return member is not None and run != member.run and (born is None or born.run != run)


def admitted(session: Session, reply: m.Admitted, now: float) -> Step:
    member, who = session.member, session.identity
    if _of_another_run(session, reply.run):
        return stay(session)
    if member and reply.run == member.run and reply.epoch < member.epoch:
        return stay(session)
    if not who.has(reply.task):
        has = ", ".join((*who.tasks, *(f"{family}N" for family in who.families)))
        return stop(
            session,
            2,
            f"run {reply.run} trains {reply.task!r}, which is not installed on this edge; it has: {has}",
        )
    if who.task not in (None, reply.task):
        return stop(session, 2, f"run {reply.run} trains {reply.task!r}, but --task is {who.task!r}")
    step = stay(session)
    if member is None or reply.run != member.run:
        step = then(step, drop_work, drop_appraisal, lambda s: stay(replace(s, settled=-1)))
    return then(
        step,
        lambda s: stay(replace(s, member=Member(reply.run, reply.epoch, reply.task, reply.partition))),
        lambda s: _take_up_kept(s, reply, now),
        lambda s: _is_held(s, reply),
        lambda s: _go_on(s, session, reply, now),
    )


def _take_up_kept(session: Session, reply: m.Admitted, now: float) -> Step:
    """What was finished before this process began is reported to its run; to another one it is of no use."""
    kept = session.kept
    if kept is None:
        return stay(session)
    session = replace(session, kept=None)
    if kept.selected.run != reply.run or not session.identity.trains:
        return stay(session)
    number = kept.selected.round
    said = Say(f"round {number}: its update was finished before the restart")
    work = Reporting(kept.selected, kept.update, None, 0, now)
    return stay(replace(session, work=work, settled=max(session.settled, number - 1)), said)


def _is_held(session: Session, reply: m.Admitted) -> Step:
    """The aggregator has this edge's update for round ``held``: no need to send it, or to make another."""
    if reply.held is None:
        return stay(session)
    session = replace(session, settled=max(session.settled, reply.held))
    if isinstance(session.work, Idle) or session.work.selected.round != reply.held:
        return stay(session)
    said = Say(f"round {reply.held}: the aggregator already has the update")
    return then(drop_work(session), lambda s: stay(s, said))


def _go_on(session: Session, before: Session, reply: m.Admitted, now: float) -> Step:
    """What an admission leads to: loading, the second registration, or nothing more to say."""
    line, part, partition, link = session.line, session.part, reply.partition, before.link
    assert line is not None
    named = f"admitted to run {reply.run} ({reply.task})"
    if not session.identity.trains:
        session = replace(session, link=Registered(line))
        return stay(session) if isinstance(link, Registered) else stay(session, Say(named))
    if partition is None:
        if isinstance(link, AwaitingPart):
            return await_part(session, now, link.attempt)
        said = Say(f"{named}; data will be assigned when the run starts")
        return then(stay(session, said), lambda s: await_part(s, now, 0))
    if isinstance(part, NoPart) or (part.task, part.partition) != (reply.task, partition):
        said = Say(f"{named} with partition {partition.index} of {partition.count}")
        return then(
            stay(session, said),
            lambda s: load(s, reply.task, partition, 0),
            lambda s: stay(replace(s, link=Loading(line))),
        )
    if isinstance(part, LoadingPart):
        return stay(replace(session, link=Loading(line)))
    if before.member != session.member or not isinstance(link, Confirming | Registered):
        return confirm(session, now, 0)
    if isinstance(link, Confirming) and reply.examples != part.examples:
        return stay(session)  # the answer to the first registration, late or for the second time
    session = replace(session, link=Registered(line))
    if isinstance(link, Registered):
        return stay(session)
    return stay(session, Say(f"registered for run {reply.run} with {part.examples} examples"))


def load(session: Session, task: str, partition: m.Partition, failures: int) -> Step:
    effects = (Cancel(session.part.job),) if isinstance(session.part, LoadingPart) else ()
    session, job = started(session)
    session = replace(session, part=LoadingPart(job, task, partition, failures))
    return stay(session, *effects, Load(job, task, partition))


def part_loaded(session: Session, event: PartLoaded) -> Step:
    part = session.part
    if not isinstance(part, LoadingPart) or part.job != event.job:
        return stay(session)
    loaded = Part(part.task, part.partition, event.examples, event.holdout, event.manifest)
    said = Say(
        f"loaded partition {part.partition.index}: {event.examples} examples, {event.holdout} held out"
    )
    session = replace(session, part=loaded)
    if isinstance(session.link, Loading):
        return then(stay(session, said), lambda s: confirm(s, event.now, 0))
    return stay(session, said)


def part_failed(session: Session, event: JobFailed) -> Step:
    part = session.part
    assert isinstance(part, LoadingPart)
    session = replace(session, part=NoPart())
    if event.users_mistake:
        return stop(session, 2, event.detail)
    if part.failures + 1 >= LOADS:
        return stop(session, 1, f"cannot load the data: {event.detail}")
    said = Say(f"cannot load the data, trying again: {event.detail}", "warning")
    return then(stay(session, said), lambda s: load(s, part.task, part.partition, part.failures + 1))


def refused(session: Session, reply: m.Refused) -> Step:
    if _of_another_run(session, reply.run):
        return stay(session)
    return stop(session, 2, f"refused by run {reply.run}: {reply.reason}: {reply.detail}")
