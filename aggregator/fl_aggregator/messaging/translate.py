"""Translates messages into events, and effects into messages; rejects what does not belong to the run."""

from __future__ import annotations

from fl_aggregator.configuration.privacy import round_privacy
from fl_aggregator.configuration.regions import regional_sums
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import Envelope, EnvelopeSource
from fl_shared.protocol.limits import INLINE_COHORT, INLINE_LIMIT, INLINE_OVERHEAD
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import DELTA


class MessageRejected(Exception):
    """A message does not belong to this run, or contradicts itself.

    ``reason`` is the reason under which it is counted. ``client`` is the sender, as the topic or else the
    message says.
    """

    def __init__(self, reason: str, detail: str, client: str | None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.client = client


def event_from(
    topic: t.Topic, message: m.Message, scope: EnvelopeSource, now: float, size: int
) -> on.Event | None:
    """Returns the event that a message to the aggregator means, or null if it means none.

    ``now`` is run time in seconds, ``size`` the bytes of the payload. Raises ``MessageRejected``.
    """
    _check_scope(topic, message, scope)
    match message:
        case m.Registration():
            return _registration_event(message, scope, now)
        case m.ClientPresence(state="offline"):
            return on.EdgeLost(now=now, client=message.client, session=message.session, reason=message.reason)
        case m.ClientPresence():
            return None  # a birth says less than the registration that follows, and may be an old one
        case m.Update():
            return on.UpdateArrived(now=now, update=_update_metadata(message, size), payload=message)
        case m.Offer():
            return on.UpdateOffered(now=now, update=_update_metadata(message, message.size), payload=message)
        case m.TrainingFailed():
            return on.TrainingFailureReported(
                now=now, client=message.client, round=message.round, detail=message.detail
            )
        case m.Evaluation():
            return on.Evaluated(
                now=now,
                client=message.client,
                session=message.session,
                version=message.version,
                digest=message.digest,
                split=message.split,
                examples=message.examples,
                loss=message.loss,
                metrics=message.metrics,
                before=message.before or {},
                confusion=None
                if message.confusion is None
                else on.ConfusionCounts(message.confusion.labels, message.confusion.counts),
            )
        case m.Command():
            return _command_event(message, scope, now)
        case _:
            return None


def _command_event(message: m.Command, scope: EnvelopeSource, now: float) -> on.Event:
    if message.run != scope.run:
        raise MessageRejected("other-run", f"run: {message.run!r}, expected {scope.run!r}", None)
    if message.incarnation not in (None, scope.incarnation):
        raise MessageRejected(
            "other-incarnation", f"incarnation: {message.incarnation}, expected {scope.incarnation}", None
        )
    suffix = f": {message.reason}" if message.reason else ""
    match message:
        case m.Pause(number=number):
            return on.PauseRequested(now=now, reason=f"by the operator{suffix}", number=number)
        case m.Resume(number=number):
            return on.UnpauseRequested(now=now, number=number)
        case _:
            return on.StopRequested(now=now, reason=f"stopped by the operator{suffix}")


def invalid_update_event(
    topic: t.UpdatesTopic,
    claim: m.UpdateClaim,
    detail: str,
    scope: EnvelopeSource,
    now: float,
    *,
    awaited: bool,
) -> on.UpdateInvalid | on.UpdateOffered:
    """Returns the event for an update or offer that cannot be decoded, but says who sent it.

    If it is not ``awaited``, its content does not matter: it is answered by its round and sender. Raises
    ``MessageRejected`` if it does not belong to this run.
    """
    _check_scope(topic, claim, scope)
    if not awaited:
        metadata = on.UpdateMetadata(
            client=claim.client, session=claim.session, round=claim.round, base=None, digest=claim.digest,
            manifest="", examples=0, steps=0, size=0,
        )  # fmt: skip
        return on.UpdateOffered(now=now, update=metadata)
    return on.UpdateInvalid(
        now=now,
        client=claim.client,
        session=claim.session,
        round=claim.round,
        digest=claim.digest,
        reason="malformed",
        detail=detail,
    )


def _check_scope(topic: t.Topic, message: m.Message | m.UpdateClaim, scope: EnvelopeSource) -> None:
    topic_client = getattr(topic, "client", None)
    message_client = getattr(message, "client", None)
    client = topic_client or message_client
    if topic_client is not None and message_client is not None and topic_client != message_client:
        raise MessageRejected(
            "client-mismatch",
            f"client: {message_client!r}, expected {topic_client!r}, as in the topic",
            client,
        )
    if not isinstance(message, m.Scoped | m.UpdateClaim):
        return
    if message.run != scope.run:
        raise MessageRejected("other-run", f"run: {message.run!r}, expected {scope.run!r}", client)
    if message.incarnation != scope.incarnation:
        # Not rejected: the edge will say it again in this incarnation, and must not lose what it has.
        raise MessageRejected(
            "other-incarnation", f"incarnation: {message.incarnation}, expected {scope.incarnation}", client
        )


def _registration_event(message: m.Registration, scope: EnvelopeSource, now: float) -> on.Registered:
    # What an edge has loaded counts only if this run's admission told it to load that.
    is_current = message.run == scope.run and message.incarnation == scope.incarnation
    return on.Registered(
        now=now,
        client=message.client,
        session=message.session,
        device=message.device,
        roles=message.roles,
        encodings=message.encodings,
        abilities=message.abilities,
        task=message.task,
        manifest=message.manifest if is_current else None,
        examples=message.examples if is_current else None,
        metrics=message.metrics if is_current else None,
        unable=message.unable if is_current else None,
        fresh=message.fresh and is_current,
        edges=message.edges,
        via=message.via,
        environment=message.environment,
        keys=message.keys if is_current else None,
        local_part=message.local_part if is_current else None,
    )


def _update_metadata(message: m.Update | m.Offer, size: int) -> on.UpdateMetadata:
    manifests = {section.name: section.manifest for section in message.sections}
    metrics = message.metrics
    return on.UpdateMetadata(
        client=message.client,
        session=message.session,
        round=message.round,
        base=message.base,
        digest=message.digest,
        manifest=manifests.get(DELTA, ""),
        examples=message.examples,
        steps=message.steps,
        size=size,
        seconds=message.seconds,
        before=metrics.before or {},
        after=metrics.after or {},
        train=metrics.train or {},
        parts=_parts_of(message.sum_of),
        plan=message.plan,
    )


def _parts_of(sum_of: m.SumOf | None) -> tuple[on.Part, ...]:
    if sum_of is None:
        return ()
    columns = (sum_of.clients, sum_of.examples, sum_of.steps, sum_of.losses, sum_of.norms)
    return tuple([on.Part(*row) for row in zip(*columns, strict=True)])


class _ReplyEnvelope(Envelope):
    client: str
    session: str


def reply_message(
    effect: do.SendReply, settings: Settings, scope: EnvelopeSource, weights: Manifest | None
) -> m.Reply:
    """Returns the message that a reply is sent as, on ``fl/replies/<client>``.

    ``weights``: the arrays of the run's model, if there is one, for an edge that has another.
    """
    envelope = _ReplyEnvelope(
        **scope.envelope_to(effect.client), client=effect.client, session=effect.session
    )
    match effect.body:
        case do.Admit(partition=index) as body:
            partition = None if index is None else settings.partition_at(index)
            return m.Admitted(
                **envelope,
                task=settings.task_spec,
                partition=partition,
                examples=body.examples,
                finished_round=body.finished_round,
                newest_round=body.newest_round,
                awaited=body.awaited,
                counted=None
                if body.counted is None
                else m.CountedUpdate(round=body.counted.round, digest=body.counted.digest),
                sums=regional_sums(settings) if body.sums else None,
                masked=settings.masked,
                private=settings.dp is not None,
            )
        case do.Refuse(reason=reason, detail=detail):
            explains = (
                reason == "wrong-manifest"
                and weights is not None
                and len(weights.model_dump_json()) <= m.MAX_WEIGHTS_JSON
            )
            return m.Refused(
                **envelope, reason=reason, detail=detail[:1000], weights=weights if explains else None
            )
        case do.Accept(round=number, digest=digest):
            return m.Accepted(**envelope, round=number, digest=digest)
        case do.Reject(round=number, digest=digest, reason=reason, detail=detail):
            return m.Rejected(**envelope, round=number, digest=digest, reason=reason, detail=detail[:1000])


def selected_message(
    effect: do.AnnounceRound,
    settings: Settings,
    correction: m.Correction | None,
    companions: tuple[m.Companion, ...],
    scope: EnvelopeSource,
    now: float,
    maximum_packet_size: int,
) -> m.Selected:
    """Returns the message that opens a round; ``maximum_packet_size`` is the bytes of the broker's largest packet.

    Above 256 ids the cohort is left out, and each edge gets the message on its own topic; also if it is secret.
    """
    version = 0 if effect.base is None else effect.base.version
    training, order = settings.training_request(version), effect.order
    if order is not None:
        training, correction = order.training, order.correction
    return m.Selected(
        **scope.envelope(),
        round=effect.round,
        task=settings.task_spec,
        cohort=effect.cohort if len(effect.cohort) <= m.MAX_CLIENTS_NAMED and not effect.secret else None,
        seconds_left=max(0.0, effect.deadline - now),
        training=training,
        fold=settings.fold_settings,
        encoding=effect.encoding,
        base=effect.base,
        inline_limit=_inline_limit(
            settings.clients if effect.secret else len(effect.cohort), maximum_packet_size
        ),
        correction=None if effect.base is None else correction,
        companions=companions,
        masked=None if effect.masking is None else effect.masking.message(),
        privacy=None if effect.base is None else round_privacy(settings, effect.clip),
    )


def ticket_message(
    effect: do.IssueTicket,
    settings: Settings,
    correction: m.Correction | None,
    scope: EnvelopeSource,
    now: float,
    maximum_packet_size: int,
) -> m.Selected:
    """Returns the message that asks one edge of an asynchronous run to train, on its own topic."""
    ticket, edges = effect.ticket, settings.concurrency or 1
    alone = do.AnnounceRound(ticket.round, ticket.base, settings.encoding, (effect.client,), ticket.deadline)
    selected = selected_message(alone, settings, correction, (), scope, now, maximum_packet_size)
    limit = _inline_limit(edges, maximum_packet_size)
    return selected.model_copy(update={"cohort": None, "ticket": True, "inline_limit": limit})


def _inline_limit(cohort: int, maximum_packet_size: int) -> int:
    """Returns the bytes of the largest update that may be sent whole; 0 for a large cohort.

    A whole update saves a round trip. Those of all the cohort must fit into a broker's queue for one
    subscriber, and into our inbox, at the same time.
    """
    return 0 if cohort > INLINE_COHORT else max(0, min(INLINE_LIMIT, maximum_packet_size - INLINE_OVERHEAD))
