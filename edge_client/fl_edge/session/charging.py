"""Counts what an update costs, before anything of it is sent: so a killed edge never forgets it.

See docs/differential-privacy.md, *Local*.
"""

from __future__ import annotations

from fl_edge.session import reporting
from fl_edge.session.declining import decline
from fl_edge.session.effects import Charge, LogNotice
from fl_edge.session.events import Charged, Trained
from fl_edge.session.privacy import added
from fl_edge.session.state import LoadedPartition, Session
from fl_edge.session.transitions import Transition, discreet, transition
from fl_edge.session.work import Calm, Idle, Reporting
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace
from fl_shared.transfer.upload import FinishedUpdate

NO_NOISE = "the update does not have the noise that this edge adds for the privacy of its data"


def problem_of_noise(session: Session, update: FinishedUpdate, event: Trained) -> str | None:
    """Says why the edge must not send what it has made; null if it may. First weights depend on no data."""
    privacy = session.identity.privacy
    if update.base is None or not privacy.is_asked or privacy.covers(event.charges):
        return None
    return NO_NOISE


def told(session: Session, selected: m.Selected, event: Trained) -> FinishedUpdate:
    """Returns the update as the aggregator may see it.

    An edge that adds noise of its own does not tell its accuracy, which would have none.
    """
    update, privacy, loaded = event.update, session.identity.privacy, session.partition_state
    if not session.is_discreet:
        return update
    declared = loaded.metrics if isinstance(loaded, LoadedPartition) else None
    update = discreet(update, selected, None if privacy.is_asked else declared)
    if privacy.tells and event.epsilon is not None and update.plan is None:
        return replace(update, metrics=m.UpdateMetrics(train={"epsilon": event.epsilon}))
    return update


def notices(session: Session, event: Trained) -> tuple[LogNotice, ...]:
    """Returns what the edge's log says of the cost."""
    privacy, of_budget = session.identity.privacy, ""
    if privacy.budget is not None:
        of_budget = f" of {privacy.budget.epsilon:g}"
    total = (*session.charged, *event.charges)
    found = [] if event.epsilon is None else [("each example", event.epsilon)]
    if any(one.unit == "edge" for one in event.charges):
        found.append(("all of this edge's data", privacy.epsilon(total)))
    return tuple(
        LogNotice(
            f"with this update, ε is {one:.3g}{of_budget} for {what} (δ {privacy.delta:g}, over all runs)"
        )
        for what, one in found
    )


def spent(session: Session) -> str | None:
    """Says that the edge's privacy budget allows no further update; null if it does."""
    return session.examples_spent or session.identity.privacy.problem_of(session.charged)


def withdraw(session: Session, now: float) -> Transition:
    """Leaves the run if the budget is spent, once the edge owes it nothing any more."""
    membership = session.membership
    if membership is None or not session.identity.trains or (problem := spent(session)) is None:
        return transition(session)
    if not isinstance(session.work, Idle) or not isinstance(session.unmasking, Calm):
        return transition(session)
    return decline(session, membership, problem, now)


def charge(session: Session, now: float) -> Transition:
    """Has the cost of the update written down, and reports an update that costs nothing, or more than is left."""
    match session.work:
        case Reporting(selected=selected, uncharged=charges) if (
            problem := session.identity.privacy.problem_of(session.charged, charges)
        ):
            return reporting.report_failure(session, selected, problem, now)
        case Reporting(selected=selected, update=update, uncharged=charges) if charges:
            return transition(session, Charge(selected.run, selected.round, update.digest, charges))
        case _:
            return reporting.report(session, now)


def charged(session: Session, event: Charged) -> Transition:
    """Reports the update whose cost is written down; without that, only that there is none."""
    match session.work:
        case Reporting(selected=selected, update=update, uncharged=charges) as work if (
            charges and update.digest == event.digest
        ):
            if event.problem is not None:
                return reporting.report_failure(session, selected, event.problem, event.now)
            total = added(session.charged, charges)
            session = replace(session, charged=total, work=replace(work, uncharged=()))
            return reporting.report(session, event.now)
        case _:
            return transition(session)
