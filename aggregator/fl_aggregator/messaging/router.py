"""Turns received messages into events: unseals and decodes them for the `reader`; counts and drops the rest."""

from __future__ import annotations

import time

from fl_aggregator.messaging import translate
from fl_aggregator.messaging.commands import AnswerAddress, addressed, refusal
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage
from fl_aggregator.messaging.rate_limiter import RateLimiter, Throttled
from fl_aggregator.messaging.reader import EMPTY_INBOUND, Inbound, MessageReader
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.revoked_kits import RevokedKits
from fl_aggregator.messaging.translate import MessageRejected
from fl_aggregator.messaging.unsealing import NotEntitled, Unsealer, check_account, check_claims
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round import updates
from fl_aggregator.round.state import Run
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.security.vouchers import Voucher


class Router:
    """Reads messages on the loop's thread."""

    def __init__(
        self,
        connections: Connections,
        rejections: Rejections,
        unsealer: Unsealer,
        scope: EnvelopeSource,
        rate_limiter: RateLimiter,
        channels: Channels = CHANNELS,
        enrolment: bytes | None = None,
    ) -> None:
        """``enrolment``: see `MaskedAnswers`."""
        self.revoked = RevokedKits()
        self.reader = MessageReader(rejections, scope, enrolment, self.revoked)
        self._rate_limiter = rate_limiter
        self._connections = connections
        self._channels = channels
        self._rejections = rejections
        self._unsealer = unsealer
        self._scope = scope

    def read(self, arrival: AdmittedMessage, state: Run, now: float) -> Inbound:
        """Returns what a message means; ``now`` is run time in seconds."""
        topic, received = arrival.topic, arrival.received
        if topic is None:
            detail = f"topic: {received.topic[:100]!r}, expected a topic of the protocol"
            return self.drop(state, None, "unknown-topic", detail)
        channel = self._channels.of(topic)
        if channel.sender == "aggregator":
            if not self._connections.repair_if_foreign(
                received.topic, received.payload, retained=received.retain
            ):
                detail = f"topic: {received.topic}: only the aggregator may publish there"
                self.drop(state, None, "foreign", detail)
            return EMPTY_INBOUND
        if not received.payload:
            return EMPTY_INBOUND
        if isinstance(topic, t.RegisterTopic) and not received.retain:
            self._connections.edge_registered()
        if received.retain and not channel.retained:
            # Other clients may only retain presence: this is a mistake, or left by an earlier run.
            self._connections.clear_foreign(received.topic)
            detail = f"topic: {received.topic}: only presence may be retained"
            return self.drop(state, None, "retained", detail)
        if isinstance(topic, t.ControlTopic):
            return self._read_command(topic, arrival, state, now)
        if isinstance(topic, t.BrokerTopic):
            return self._read_bridge_state(topic, received.payload, state, now)
        begun = time.thread_time()
        try:
            payload, voucher = self._unsealer.unseal(topic, received.topic, received.payload)
        except MessageRejected as error:
            self._rate_limiter.charge_work(arrival, time.thread_time() - begun)
            return self.drop(state, error.client, error.reason, str(error))
        # What could be opened is not charged: its time grows with its bytes, and granted chunks must not meet a limit.
        begun = time.thread_time()
        try:
            return self._decode(topic, payload, voucher, state, now)
        finally:
            self._rate_limiter.charge_work(arrival, time.thread_time() - begun)

    def _read_command(
        self, topic: t.ControlTopic, arrival: AdmittedMessage, state: Run, now: float
    ) -> Inbound:
        """A command is answered, also if it is not obeyed, when its Response Topic is one for answers."""
        received, to = arrival.received, None
        answers = self._connections.parse(received.response_topic or "")
        if isinstance(answers, t.AnswersTopic):
            to = AnswerAddress(answers, received.correlation_data)
        try:
            payload, voucher = self._unsealer.unseal(topic, received.topic, received.payload)
            self._check_entitled(topic, voucher)
            message = codec.decode(topic, payload, self._channels)
            event = translate.event_from(topic, message, self._scope, now, len(payload))
        except codec.DecodeError as error:
            self.drop(state, None, "wrong-version" if error.wrong_version else "malformed", str(error))
            reply = refusal(to, str(error))
        except MessageRejected as error:
            self.drop(state, error.client, error.reason, str(error))
            reply = refusal(to, str(error))
        else:
            return EMPTY_INBOUND if event is None else Inbound(addressed(event, to))
        return EMPTY_INBOUND if reply is None else Inbound(reply=reply)

    def _read_bridge_state(
        self, topic: t.BrokerTopic, payload: bytes | memoryview, state: Run, now: float
    ) -> Inbound:
        """A bridge that is lost takes its edges with it; one that is back says nothing about them."""
        if payload not in (b"0", b"1"):
            detail = f"{self._channels.of(topic).topic.__name__}: {bytes(payload[:20])!r}, expected 0 or 1"
            return self.drop(state, None, "malformed", detail)
        lost = payload == b"0" and bool(state.roster.behind(topic.broker))
        return Inbound(on.BridgeLost(now=now, broker=topic.broker)) if lost else EMPTY_INBOUND

    def _decode(
        self, topic: t.Topic, payload: bytes | memoryview, voucher: Voucher | None, state: Run, now: float
    ) -> Inbound:
        most = codec.MAX_CONTAINERS
        if isinstance(topic, t.UpdatesTopic) and not updates.may_describe_arrays(state, topic.client):
            most = codec.MAX_CONTAINERS_WITHOUT_ARRAYS
        try:
            self._check_entitled(topic, voucher)
            message = codec.decode(topic, payload, self._channels, max_containers=most)
            if voucher is not None:
                check_claims(voucher, message)
            if isinstance(message, m.Registration):
                self.revoked.remember(message.client, message.session, voucher, state.roster)
        except codec.DecodeError as error:
            return self._handle_undecodable(topic, payload, error, state, now)
        except NotEntitled as error:
            return self._refuse(topic, payload, error, state)
        except MessageRejected as error:
            return self.drop(state, error.client, error.reason, str(error))
        return self.reader.read(topic, message, len(payload), state, now)

    def _check_entitled(self, topic: t.Topic, voucher: Voucher | None) -> None:
        """Raises `NotEntitled` if an account may not write to a topic, or its kit is revoked."""
        channel = self._channels.of(topic)
        if voucher is not None:
            check_account(voucher, channel)
        if channel.sealable:
            account = getattr(topic, "client", None) if voucher is None else voucher.account
            self.revoked.check(account, voucher)

    def record_throttled(self, state: Run) -> None:
        """Counts messages that the rate limiter has dropped since the last call, and sometimes tells their senders."""
        for throttled in self._rate_limiter.pop_throttled():
            self._record_throttled(throttled, state)

    def _record_throttled(self, throttled: Throttled, state: Run) -> None:
        reason, detail = throttled.exceeded.reason, str(throttled.exceeded)
        client = None if throttled.client is None else state.roster.get(throttled.client)
        self._rejections.count(throttled.client, reason, detail, throttled.count, known=client is not None)
        if throttled.notify and throttled.client is not None and client is not None:
            envelope = self._scope.envelope()
            message = m.Limited(
                **envelope, client=throttled.client, session=client.session, reason=reason, detail=detail
            )
            self._connections.send(t.RepliesTopic(throttled.client), message)

    def _handle_undecodable(
        self, topic: t.Topic, payload: bytes | memoryview, error: codec.DecodeError, state: Run, now: float
    ) -> Inbound:
        """Answers a message that cannot be decoded, if it says who sent it and that is plausible.

        Without an answer, an edge would send the same update again and again, and the round would wait for it
        until its deadline. An edge of another protocol version is refused, and takes no part until it is offline.
        Anything else is dropped.
        """
        client = getattr(topic, "client", None)
        if isinstance(topic, t.UpdatesTopic) and not error.wrong_version:
            claim = codec.claim_in(payload)
            client_state = None if claim is None else state.roster.get(claim.client)
            if claim is not None and client_state is not None and client_state.session == claim.session:
                try:
                    return Inbound(
                        translate.invalid_update_event(
                            topic,
                            claim,
                            str(error),
                            self._scope,
                            now,
                            awaited=updates.is_awaited(state, claim.client, claim.round),
                        )
                    )
                except MessageRejected as rejected:
                    return self.drop(state, rejected.client, rejected.reason, str(rejected))
        if error.wrong_version and client and (sender := codec.session_claim_in(payload)) is not None:
            if isinstance(topic, t.RegisterTopic):
                return Inbound(on.registered_in_other_version(now, client, sender.session, str(error)))
            if isinstance(topic, t.PresenceTopic) and sender.state == "offline":
                return Inbound(on.EdgeLost(now=now, client=client, session=sender.session))
        return self.drop(state, client, "wrong-version" if error.wrong_version else "malformed", str(error))

    def _refuse(self, topic: t.Topic, payload: bytes | memoryview, error: NotEntitled, state: Run) -> Inbound:
        """Refuses a registration that the account is not entitled to; drops anything else."""
        sender = codec.session_claim_in(payload) if isinstance(topic, t.RegisterTopic) else None
        if sender is None or error.client is None:
            return self.drop(state, error.client, error.reason, str(error))
        refusal = do.Refuse(error.refusal_reason, str(error))
        return Inbound(reply=do.SendReply(error.client, sender.session, refusal))

    def drop(self, state: Run, client: str | None, reason: str, detail: str) -> Inbound:
        """See `MessageReader.drop`."""
        return self.reader.drop(state, client, reason, detail)
