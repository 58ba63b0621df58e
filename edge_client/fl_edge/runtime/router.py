"""Routes what the broker sends to the edges of a process: decodes it, and counts what is useless."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, assert_never

from fl_edge.messaging.connection import EdgeConnected, EdgeConnectionEvent
from fl_edge.messaging.model_store import ModelStore
from fl_edge.messaging.translate import event_of, event_of_cleared
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.notices import ConnectionNotices
from fl_edge.runtime.remote_log import RemoteLog
from fl_edge.session import events
from fl_edge.session.state import Session
from fl_shared.errors import BadSignature
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels
from fl_shared.protocol.codec import DecodeError, decode, session_claim_in
from fl_shared.system.flood_control import is_worth_logging

LOG = logging.getLogger(__name__)

MAX_KINDS: Final = 100
"""Kinds of useless messages that are told apart, since a peer must not fill the disk with our log."""

SHARED_MESSAGES: Final = 32
"""Messages to all edges that are kept decoded: those that a broker retains, and some more."""


class _StaleMessage(Exception):
    """The message was true once, but is old: someone has kept it (protocol, 9.5 to 9.7)."""


class Router:
    """Turns what arrives at an edge into events of its session.

    ``add_event`` queues an event for an edge's session; ``process_events`` handles all queued events and
    performs their effects. ``remote_log`` answers requests for an edge's log; null: none is answered.
    """

    def __init__(
        self,
        prefix: str,
        store: ModelStore,
        notices: ConnectionNotices,
        add_event: Callable[[Edge, events.Event], None],
        process_events: Callable[[], None],
        remote_log: RemoteLog | None = None,
        channels: Channels = CHANNELS,
    ) -> None:
        self._prefix = prefix
        self._channels = channels
        self._store = store
        self._notices = notices
        self._add_event = add_event
        self._process_events = process_events
        self._remote_log = remote_log
        self._drop_counts: Counter[str] = Counter()
        self._decoded = lru_cache(SHARED_MESSAGES)(partial(decode, channels=channels))
        """What all edges of a fleet hear is decoded once, and is in memory once."""

    def on_connection_event(self, edge: Edge, event: EdgeConnectionEvent, now: float) -> None:
        """Handles an event of the connection of an edge's session."""
        assert edge.connection is not None
        match event:
            case EdgeConnected(session=session, maximum_packet_size=maximum_packet_size):
                edge.connection.is_connected = True
                edge.connection.subscribe()
                self._notices.connected(edge)
                self._add_event(edge, events.ConnectionEstablished(now, session, maximum_packet_size))
                self._process_events()
                edge.connection.subscribe_to_presence()
                self._store.connection_established(now)
            case mqtt.Lost(reason=reason):
                if edge.connection.is_connected:
                    edge.connection.is_connected = False
                    self._add_event(edge, events.ConnectionLost(now))
                    self._store.connection_lost(edge.client, now)
                self._notices.connection_lost(edge, reason, now)
            case mqtt.ConnectRefused(reason=reason):
                self._add_event(edge, events.ConnectionRefused(now, reason))
            case mqtt.Received():
                self._received(edge, event, now)
            case mqtt.Subscribed():
                self._subscribed(edge, event, now)
            case _:
                assert_never(event)

    def _subscribed(self, edge: Edge, event: mqtt.Subscribed, now: float) -> None:
        assert edge.connection is not None
        if not event.refused:
            return
        names, account = event.refusals_text, edge.connection.account
        if edge.connection.essential_filters(event.refused):
            reason = (
                f"the broker does not allow this edge to subscribe to {names}: check the rights of {account}"
            )
            self._add_event(edge, events.ConnectionRefused(now, reason))
        else:
            LOG.warning(
                "the broker does not allow this edge to read %s, continuing without: check the rights of %s",
                names,
                account,
                extra={"client": edge.client},
            )

    def _received(self, edge: Edge, received: mqtt.Received, now: float) -> None:
        topic = self._channels.parse(self._prefix, received.topic)
        if topic is None:
            self._drop(edge, "unknown topic", received.topic)
            return
        if isinstance(topic, t.ManifestTopic | t.ChunkTopic):
            reason = self._store.receive(topic, received.payload, now)
            if reason is not None:
                self._drop(edge, type(topic).__name__, reason)
            return
        if isinstance(topic, t.BrokerTopic):
            self._add_event(edge, events.BridgeSeen(now, received.payload == b"1"))
            return
        if isinstance(topic, t.LogRequestTopic):
            self._log_requested(edge, topic, received, now)
            return
        try:
            event = self._decode(edge, topic, received, now)
        except (DecodeError, BadSignature, _StaleMessage) as error:
            event = None
            self._drop(edge, type(topic).__name__, str(error))
        if event is not None:
            self._add_event(edge, event)

    def _log_requested(
        self, edge: Edge, topic: t.LogRequestTopic, received: mqtt.Received, now: float
    ) -> None:
        if self._remote_log is None or received.retain or not received.payload:
            return  # a retained request is an old one
        try:
            request = decode(topic, received.payload, self._channels)
        except DecodeError as error:
            self._drop(edge, type(topic).__name__, str(error))
            return
        if isinstance(request, m.LogRequest) and request.client == topic.client == edge.client:
            self._remote_log.asked(request, now)

    def _decode(self, edge: Edge, topic: t.Topic, received: mqtt.Received, now: float) -> events.Event | None:
        """Returns the event of a message, or ``None`` if it means nothing to the session.

        Raises ``DecodeError``, ``BadSignature`` or ``_StaleMessage``.
        """
        authenticator = edge.authenticator
        if not received.payload:
            # An empty message cannot be signed: with a kit, only a result or a later round ends a round.
            is_accepted = authenticator is None or not self._channels.of(topic).signed
            return event_of_cleared(edge.client, topic, now) if is_accepted else None
        if authenticator is not None:
            authenticator.check(topic, received.topic, received.payload)
        message: m.Message | None
        try:
            if hasattr(topic, "client"):
                message = decode(topic, received.payload, self._channels)
            else:
                message = self._decoded(topic, bytes(received.payload))
        except DecodeError as error:
            message = _of_other_version(edge, topic, received, error) if error.wrong_version else None
            if message is None:
                raise
        if authenticator is not None:
            membership = edge.state.membership if isinstance(edge.state, Session) else None
            if (reason := authenticator.staleness(received.topic, message, membership)) is not None:
                raise _StaleMessage(reason)
        return event_of(edge.client, topic, message, retained=received.retain, now=now)

    def _drop(self, edge: Edge, topic_name: str, reason: str) -> None:
        """Counts a useless message; of each kind it logs the first one and those at powers of ten."""
        # The key has no values, which a peer may choose, and no numbers, which would make each chunk a kind.
        key = re.sub(r"\d+", "0", f"{topic_name}: {reason.split('(got', maxsplit=1)[0][:200]}")
        if key not in self._drop_counts and len(self._drop_counts) >= MAX_KINDS:
            key = "other kinds"
        self._drop_counts[key] += 1
        count = self._drop_counts[key]
        if is_worth_logging(count - 1, count):
            LOG.warning(
                "dropped a message (%d so far): %s: %s",
                count,
                topic_name,
                reason[:300],
                extra={"client": edge.client},
            )

    def on_predictor_event(self, edge: Edge, event: mqtt.ConnectionEvent, now: float) -> None:
        """Handles an event of the connection of an edge's predictor."""
        if edge.predictor is None:
            return
        match event:
            case mqtt.Connected(shared_subscriptions=shared):
                edge.predictor.connected(shared_subscriptions=shared)
            case mqtt.Received():
                edge.predictor.request_received(event, now)
            case mqtt.Subscribed():
                if event.refused:
                    # The share group is left out, since it may be a secret.
                    names = ", ".join(re.sub(r"^\$share/[^/]*/", "", name) for name in event.refused)
                    LOG.warning(
                        "answers no prediction requests: the broker does not allow reading %s: "
                        "check the account's rights",
                        names,
                        extra={"client": edge.client},
                    )
            case mqtt.ConnectRefused(reason=reason):
                LOG.warning("answers no prediction requests: %s", reason, extra={"client": edge.client})
            case mqtt.Lost(reason=reason):
                LOG.debug(
                    "no prediction requests until it is connected again: %s",
                    reason,
                    extra={"client": edge.client},
                )
            case _:
                assert_never(event)


def _of_other_version(
    edge: Edge, topic: t.Topic, received: mqtt.Received, error: DecodeError
) -> m.AggregatorPresence | m.Refused | None:
    """Returns what an aggregator of another version of the protocol says, in ours: its presence, or a refusal.

    Null for anything else, and for an answer to another session.
    """
    sender = session_claim_in(received.payload)
    if sender is None or sender.run is None or sender.incarnation is None:
        return None
    session, run, incarnation = sender.session, sender.run, sender.incarnation
    if isinstance(topic, t.AggregatorTopic) and sender.state is not None:
        return m.AggregatorPresence(state=sender.state, session=session, run=run, incarnation=incarnation)
    connection = edge.state.connection if isinstance(edge.state, Session) else None
    if not isinstance(topic, t.RepliesTopic) or connection is None or connection.session != session:
        return None
    return m.Refused(
        run=run,
        incarnation=incarnation,
        seq=0,
        client=edge.client,
        session=session,
        reason="wrong-version",
        detail=f"the aggregator's answer has {str(error).removeprefix('v: ')}: install its version of fl-mqtt",
    )
