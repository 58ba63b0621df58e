"""Evaluates announced models (protocol, 5.11), and names the model that answers prediction requests."""

from __future__ import annotations

from fl_edge.session.declining import decline_evaluation
from fl_edge.session.effects import Evaluate, Fetch, KeepPersonal, LogNotice, Personalize, Send, ServeModel
from fl_edge.session.events import Fetched, JobFailed, ModelEvaluated, Trained
from fl_edge.session.state import LoadedPartition, Session
from fl_edge.session.transitions import Transition, then, transition, with_next_job, with_next_seq
from fl_edge.session.work import Evaluating, EvaluationDone, EvaluationScores, Recipient, StateReference
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.frozen import replace
from fl_shared.system.text import quantity_text

EVALUATION_FETCH_TIMEOUT = 600.0
"""Seconds for fetching a model to evaluate. The fetch ends earlier if the broker no longer has the model."""
NO_SCORES = EvaluationScores(examples=0, loss=0.0)
"""Sent when there is nothing to evaluate, or the evaluation failed, so that the aggregator does not wait."""


def serve_model(session: Session, announced: m.ModelAnnouncement | None) -> Transition:
    """Lets an edge with the role ``predict`` answer with an announced model.

    Models of another run or task, and versions older than the newest known one, are ignored. An edge that
    belongs to no run answers with any model that the broker retains.
    """
    identity, membership = session.identity, session.membership
    serves = "predict" in identity.roles or identity.edges is not None  # a region passes it on to its edges
    if announced is None or not serves or not identity.has_task(announced.task):
        return transition(session)
    if identity.requires_other_task(announced.task) or (
        membership is not None and membership.run != announced.run
    ):
        return transition(session)
    messages = session.own_retained_messages()
    if (
        messages is not None
        and messages.announced is not None
        and messages.announced.version > announced.version
    ):
        return transition(session)  # a late message
    return transition(session, ServeModel(announced))


def start_evaluation(session: Session) -> Transition:
    """Evaluates the newest model of the run if the aggregator asks for that.

    If the edge has already evaluated it, the scores are sent to a recipient that does not have them.
    """
    messages = session.own_retained_messages()
    announced = messages.announced.measured if messages and messages.announced else None
    if announced is None or announced.evaluate is None or isinstance(session.evaluation, Evaluating):
        return transition(session)
    if announced.evaluate == "personal" and announced.training is None:
        return transition(session)
    if not _can_evaluate(session, announced.evaluate, announced.task):
        return transition(session)
    staged = session.own_state.staged
    if (
        staged is not None
        and not staged.ticket
        and staged.run == announced.run
        and staged.round <= announced.round
    ):
        return transition(session)  # the result, which follows, says with which part of its own it evaluates
    match session.evaluation:
        case EvaluationDone(announced=previous, split=split) if split == announced.evaluate and (
            (previous.run, previous.version, previous.digest)
            == (announced.run, announced.version, announced.digest)
        ):
            return send_evaluation(session)
        case _ if (
            announced.evaluate != "test"
            and isinstance(session.partition_state, LoadedPartition)
            and (
                session.is_discreet
                or (announced.evaluate == "holdout" and not session.partition_state.holdout)
            )
        ):
            return send_evaluation(
                replace(session, evaluation=EvaluationDone(announced, announced.evaluate, NO_SCORES, None))
            )
        case _:
            session, job = with_next_job(session)
            session = replace(session, evaluation=Evaluating(job, announced, announced.evaluate))
            return transition(session, Fetch(job, announced.digest, EVALUATION_FETCH_TIMEOUT))


def _can_evaluate(session: Session, split: m.Split, task: str) -> bool:
    identity, state, membership = session.identity, session.partition_state, session.membership
    if membership is None or task != membership.task:
        return False
    if split == "test":
        return "evaluate" in identity.roles
    return identity.trains and isinstance(state, LoadedPartition) and state.partition == membership.partition


def fetched(session: Session, event: Fetched) -> Transition:
    """Starts the evaluation when its model has been fetched."""
    match session.evaluation:
        case Evaluating(job=job, announced=announced, split=split) if job == event.job:
            loaded = session.partition_state
            if split == "personal" and isinstance(loaded, LoadedPartition):
                return transition(session, Personalize(job, announced, loaded.partition))
            partition = (
                loaded.partition if split == "holdout" and isinstance(loaded, LoadedPartition) else None
            )
            return transition(
                session, Evaluate(job, announced.run, announced.task, announced.digest, split, partition)
            )
        case _:
            return transition(session)


def evaluated(session: Session, event: ModelEvaluated) -> Transition:
    """Sends the scores, and continues with the newest model if that is another one."""
    match session.evaluation:
        case Evaluating(job=job, announced=announced, split=split) if job == event.job:
            scores = event.scores
            notice = LogNotice(f"version {announced.version}: {scores.text} on {split}")
            session = replace(session, evaluation=EvaluationDone(announced, split, scores, None))
            return then(transition(session, notice), send_evaluation, start_evaluation)
        case _:
            return transition(session)


def personalized(session: Session, event: Trained) -> Transition:
    """Keeps the model that the edge has made of the last version, and sends what it is worth."""
    match session.evaluation:
        case Evaluating(job=job, announced=announced, split=split) if job == event.job:
            reference = StateReference(announced.run, announced.version, announced.digest)
            session = replace(session, own_state=replace(session.own_state, personal=reference))
            scores = _scores_of(session, event.update.metrics)
            notice = LogNotice(f"version {announced.version}: made a model of its own: {_gain(scores)}")
            session = replace(session, evaluation=EvaluationDone(announced, split, scores, None))
            keep = KeepPersonal(reference, event.own)
            return then(transition(session, keep, notice), send_evaluation, start_evaluation)
        case _:
            return transition(session)


def _scores_of(session: Session, metrics: m.UpdateMetrics) -> EvaluationScores:
    """Returns the scores before and after the training on the edge's holdout, if it has one."""
    if metrics.before is None or metrics.after is None:
        return NO_SCORES
    before, after = (
        {name: value for name, value in found.items() if name != "examples"}
        for found in (metrics.before, metrics.after)
    )
    loaded = session.partition_state
    return EvaluationScores(
        examples=int(metrics.after["examples"]),
        loss=after.pop(m.LOSS.name),
        metrics=after,
        declared=loaded.metrics if isinstance(loaded, LoadedPartition) else (),
        before=before,
    )


def _gain(scores: EvaluationScores) -> str:
    if scores.before is None:
        return "it has no holdout to measure it on"
    primary = m.primary_of(scores.declared)
    after = {**scores.metrics, m.LOSS.name: scores.loss}
    values = (quantity_text(found.get(primary.name), primary.unit) for found in (scores.before, after))
    return f"{primary.name} {' → '.join(values)} on its holdout"


def failed(session: Session, event: JobFailed) -> Transition:
    """Reports that there are no scores, and continues with the newest model if that is another one.

    After a user's mistake, an edge with no other role leaves the run, and so does one whose data do not fit the model.
    """
    match session.evaluation:
        case Evaluating(job=job, announced=announced, split=split) if job == event.job:
            session = replace(session, evaluation=EvaluationDone(announced, split, NO_SCORES, None))
            leaves = session.identity.roles == ("evaluate",) or event.fault == "either"
            if event.user_error and leaves and session.membership:
                return decline_evaluation(session, event)
            notice = LogNotice(f"version {announced.version}: cannot evaluate: {event.detail}", "warning")
            return then(transition(session, notice), send_evaluation, start_evaluation)
        case _:
            return transition(session)


def send_evaluation(session: Session) -> Transition:
    """Sends the scores, once to each incarnation on each connection; none of its own data where it must not."""
    state, recipient = session.evaluation, session.recipient()
    if recipient is None or not isinstance(state, EvaluationDone) or state.sent_to == recipient:
        return transition(session)
    if state.announced.run != recipient.run:
        return transition(session)
    session, seq = with_next_seq(session)
    # The test split is no edge's own.
    scores = NO_SCORES if session.is_discreet and state.split != "test" else state.scores
    message = _message(session.identity.client, recipient, seq, state.announced, state.split, scores)
    session = replace(session, evaluation=replace(state, sent_to=recipient))
    return transition(session, Send(t.EvaluationsTopic(session.identity.client), message))


def _message(
    client: str,
    recipient: Recipient,
    seq: int,
    announced: m.ModelAnnouncement,
    split: m.Split,
    scores: EvaluationScores,
) -> m.Evaluation:
    return m.Evaluation(
        run=recipient.run,
        incarnation=recipient.incarnation,
        seq=seq,
        client=client,
        session=recipient.session,
        version=announced.version,
        digest=announced.digest,
        split=split,
        examples=scores.examples,
        loss=scores.loss,
        metrics=dict(scores.metrics),
        confusion=scores.confusion,
        before=None if scores.before is None else dict(scores.before),
    )
