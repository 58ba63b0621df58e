"""Evaluating announced models (protocol, 5.11), and naming the one that predictions are answered with."""

from __future__ import annotations

from dataclasses import replace

from fl_edge.session.effects import Evaluate, Fetch, OfferModel, Say, Send
from fl_edge.session.events import Evaluated, Fetched, JobFailed
from fl_edge.session.state import Appraisal, Appraised, Appraising, Part, Session, Told
from fl_edge.session.transitions import Step, numbered, started, stay, stop, then
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t

PATIENCE = 600.0
"""Seconds that fetching a model may take which is to be evaluated. A newer version ends it anyway."""
NONE = Appraisal(examples=0, loss=0.0, accuracy=0.0)
"""Said all the same, so that nobody waits for it."""


def offer(session: Session, announced: m.ModelAnnouncement | None) -> Step:
    """Before it belongs to a run, an edge answers with whatever model lies at the broker."""
    who, member = session.identity, session.member
    if announced is None or "predict" not in who.roles or not who.has(announced.task):
        return stay(session)
    if who.task not in (None, announced.task) or (member is not None and member.run != announced.run):
        return stay(session)
    post = session.own_post()
    if post is not None and post.announced is not None and post.announced.version > announced.version:
        return stay(session)  # it came late
    return stay(session, OfferModel(announced))


def appraise(session: Session) -> Step:
    """Evaluates the newest model of the own run, or says again what it has found, where that is asked for."""
    post = session.own_post()
    announced = post.announced if post else None
    if announced is None or announced.evaluate is None or isinstance(session.appraisal, Appraising):
        return stay(session)
    if not _can(session, announced.evaluate, announced.task):
        return stay(session)
    match session.appraisal:
        case Appraised(announced=before, split=split) if split == announced.evaluate and (
            (before.run, before.version, before.digest)
            == (announced.run, announced.version, announced.digest)
        ):
            return tell(session)
        case _ if (
            announced.evaluate == "holdout" and isinstance(session.part, Part) and not session.part.holdout
        ):
            return tell(replace(session, appraisal=Appraised(announced, announced.evaluate, NONE, None)))
        case _:
            session, job = started(session)
            session = replace(session, appraisal=Appraising(job, announced, announced.evaluate))
            return stay(session, Fetch(job, announced.digest, PATIENCE))


def _can(session: Session, split: m.Split, task: str) -> bool:
    who, part, member = session.identity, session.part, session.member
    if member is None or task != member.task:
        return False
    if split == "test":
        return "evaluate" in who.roles
    return who.trains and isinstance(part, Part) and part.partition == member.partition


def fetched(session: Session, event: Fetched) -> Step:
    match session.appraisal:
        case Appraising(job=job, announced=announced, split=split) if job == event.job:
            partition = (
                session.part.partition if split == "holdout" and isinstance(session.part, Part) else None
            )
            return stay(session, Evaluate(job, announced.task, announced.digest, split, partition))
        case _:
            return stay(session)


def evaluated(session: Session, event: Evaluated) -> Step:
    match session.appraisal:
        case Appraising(job=job, announced=announced, split=split) if job == event.job:
            found = event.appraisal
            said = Say(f"version {announced.version}: accuracy {found.accuracy:.4f} on {split}")
            session = replace(session, appraisal=Appraised(announced, split, found, None))
            return then(stay(session, said), tell, appraise)
        case _:
            return stay(session)


def failed(session: Session, event: JobFailed) -> Step:
    match session.appraisal:
        case Appraising(job=job, announced=announced, split=split) if job == event.job:
            session = replace(session, appraisal=Appraised(announced, split, NONE, None))
            if event.users_mistake and session.identity.roles == ("evaluate",):
                return stop(session, 2, event.detail)
            said = Say(f"version {announced.version}: cannot evaluate: {event.detail}", "warning")
            return then(stay(session, said), tell, appraise)
        case _:
            return stay(session)


def tell(session: Session) -> Step:
    """Sends what was found, once to each start of the aggregator on each connection."""
    state, told = session.appraisal, session.admitted_as()
    if told is None or not isinstance(state, Appraised) or state.told == told:
        return stay(session)
    if state.announced.run != told.run:
        return stay(session)
    session, seq = numbered(session)
    message = _message(session.identity.client, told, seq, state.announced, state.split, state.appraisal)
    session = replace(session, appraisal=replace(state, told=told))
    return stay(session, Send(t.EvaluationsTopic(session.identity.client), message))


def _message(
    client: str, told: Told, seq: int, announced: m.ModelAnnouncement, split: m.Split, found: Appraisal
) -> m.Evaluation:
    return m.Evaluation(
        run=told.run,
        epoch=told.epoch,
        seq=seq,
        client=client,
        session=told.session,
        version=announced.version,
        digest=announced.digest,
        split=split,
        examples=found.examples,
        loss=found.loss,
        accuracy=found.accuracy,
        confusion=found.confusion,
    )
