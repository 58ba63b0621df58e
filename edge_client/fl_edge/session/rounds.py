"""Being selected, fetching the base, and training (protocol, section 5)."""

from __future__ import annotations

from dataclasses import replace

from fl_edge.session import reporting
from fl_edge.session.effects import Fetch, Say, Train
from fl_edge.session.events import Fetched, JobFailed, ResultSeen, SelectionCleared, SelectionSeen, Trained
from fl_edge.session.state import Fetching, Idle, Part, Posted, Reporting, Session, Training, Unable
from fl_edge.session.transitions import Step, drop_work, started, stay, then
from fl_shared.protocol import messages as m

LEAST_PATIENCE = 10.0
"""Seconds that fetching a base may take at least, however few the round has left."""
MAX_POSTS = 4
"""Starts of aggregators of which it is remembered what they posted; any but one are ghosts."""


# --- what is posted ---------------------------------------------------------------------------------------


def posted_by(session: Session, message: m.Scoped) -> Posted:
    for post in session.posted:
        if (post.run, post.epoch) == (message.run, message.epoch):
            return post
    return Posted(message.run, message.epoch)


def keep_post(session: Session, post: Posted) -> Session:
    """The newest post last; the oldest are forgotten, but not those of the own run."""
    others = [p for p in session.posted if (p.run, p.epoch) != (post.run, post.epoch)]
    own = session.own_post()
    while len(others) >= MAX_POSTS:
        others.remove(next(p for p in others if p is not own))
    return replace(session, posted=(*others, post))


def selection_seen(session: Session, event: SelectionSeen) -> Step:
    post, selected = posted_by(session, event.selected), event.selected
    if post.selected is not None and post.selected.round > selected.round:
        return stay(session)
    # On the round's own topic a cohort that is left out says nothing about this edge.
    told_in_person = post.selected is not None and post.selected.round == selected.round and post.personal
    if told_in_person and not event.personal:
        return stay(session)
    return stay(keep_post(session, replace(post, selected=selected, personal=event.personal)))


def selection_cleared(session: Session, event: SelectionCleared) -> Step:
    """The round is no longer open. Whose clearing it was is not said, so all selections of that number go."""

    def is_meant(post: Posted) -> bool:
        if post.selected is None:
            return False
        return post.personal if event.round is None else post.selected.round == event.round

    cleared = [post.selected.round for post in session.posted if post.selected and is_meant(post)]
    if event.round is not None:
        # Posted by an earlier start of the aggregator, perhaps, and not by this one.
        cleared.append(event.round)
    kept = tuple(replace(p, selected=None, personal=False) if is_meant(p) else p for p in session.posted)
    session = replace(session, posted=kept)
    match session.work:
        case Fetching() | Training() | Unable() as work if work.selected.round in cleared:
            return _leave(session, "the round is no longer open")
        case _:
            return stay(session)


def result_seen(session: Session, event: ResultSeen) -> Step:
    result = event.result
    if session.member is None or result.run != session.member.run:
        return stay(session)
    session = replace(session, settled=max(session.settled, result.round))
    match session.work:
        case Fetching() | Training() | Unable() as work if work.selected.round == result.round:
            return _leave(session, f"the round was {result.outcome} without this edge")
        case _:
            # A finished update is kept until it is answered, even if that answer can only be "late".
            return stay(session)


def _leave(session: Session, why: str) -> Step:
    assert isinstance(session.work, Fetching | Training | Unable)
    said = Say(f"round {session.work.selected.round}: stopped: {why}")
    return then(drop_work(session), lambda s: stay(s, said))


# --- taking work up ---------------------------------------------------------------------------------------


def take_up(session: Session, now: float) -> Step:
    """Begins what the own aggregator has posted, if that is newer than what is being done."""
    post = session.own_post()
    selected = post.selected if post else None
    if post is None or selected is None or selected.round <= session.settled:
        return stay(session)
    work = session.work
    if not isinstance(work, Idle) and selected.round <= work.selected.round:
        return stay(session)
    # There is no way back to an earlier round, whatever the broker delivers late.
    session = replace(session, settled=max(session.settled, selected.round - 1))
    client = session.identity.client
    if not (post.personal or (selected.cohort is not None and client in selected.cohort)):
        if isinstance(work, Fetching | Training | Unable):
            return _leave(session, f"round {selected.round} has started")
        return stay(session)
    left = (
        stay(session) if isinstance(work, Idle | Reporting) else _leave(session, "selected for a later round")
    )
    return then(left, lambda s: _begin(s, selected, now))


def _begin(session: Session, selected: m.Selected, now: float) -> Step:
    member, part = session.member, session.part
    assert member is not None
    if not session.identity.trains:
        return reporting.give_up(session, selected, "this edge does not have the role train", now)
    if selected.task != member.task:
        detail = f"task: {selected.task!r} in the selection, but this edge was admitted to {member.task!r}"
        return reporting.give_up(session, selected, detail, now)
    if not isinstance(part, Part) or part.partition != member.partition:
        # Not yet: it is taken up when the part is loaded.
        return stay(session)
    said = Say(f"selected for round {selected.round}")
    session, job = started(session)
    if selected.base is None:
        session = replace(session, work=Training(job, selected))
        return stay(session, said, Train(job, selected, part.partition))
    session = replace(session, work=Fetching(job, selected))
    patience = max(LEAST_PATIENCE, selected.seconds_left)
    return stay(session, said, Fetch(job, selected.base.digest, patience))


def fetched(session: Session, event: Fetched) -> Step:
    match session.work, session.part:
        case Fetching(job=job, selected=selected), Part(partition=partition) if job == event.job:
            session = replace(session, work=Training(job, selected))
            return stay(session, Train(job, selected, partition))
        case _:
            return stay(session)


def trained(session: Session, event: Trained) -> Step:
    match session.work:
        case Training(job=job, selected=selected) if job == event.job:
            update = event.update
            loss = (update.metrics.train or {}).get("loss")
            how = "" if loss is None else f", loss {loss:.4f}"
            said = Say(f"round {selected.round}: trained in {update.seconds:.1f} s{how}")
            session = replace(session, work=Reporting(selected, update, None, 0, event.now))
            return then(stay(session, said), lambda s: reporting.report(s, event.now))
        case _:
            return stay(session)


def work_failed(session: Session, event: JobFailed) -> Step:
    match session.work:
        case Fetching(job=job, selected=selected) | Training(job=job, selected=selected) if job == event.job:
            return reporting.give_up(session, selected, event.detail, event.now)
        case _:
            return stay(session)
