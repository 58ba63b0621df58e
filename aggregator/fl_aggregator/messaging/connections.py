"""The aggregator's two connections, and the messages that it keeps retained at the broker.

Updates have a connection of their own, so that a will or a registration never waits behind them. The retained messages
are published again on every connect, and retained messages that are not of this run are cleared.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.inbox import ConnectionName, Inbox
from fl_aggregator.messaging.leftovers import Leftovers
from fl_aggregator.messaging.outgoing import publish_waiting
from fl_aggregator.messaging.retained import RetainedMessages
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.events import MAX_MQTT_PACKET
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.outbox import Pieces
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels
from fl_shared.protocol.envelope import EnvelopeSource

LOG: Final = logging.getLogger(__name__)

MAX_QUEUED_BYTES: Final = 64 * 2**20
"""Bytes that may wait to be sent, for each connection."""
MAX_CONTROL_PACKET: Final = 2 * 2**20
"""Bytes of the largest packet that the broker may send on the control connection; the connection for updates
has its own limit."""
RIVAL_TOPICS: Final = (t.AggregatorTopic, t.StatusTopic)
"""Where another aggregator under the same prefix is heard."""


class Connections:
    """Publishes for the aggregator, and puts connection events and received messages into its inbox."""

    def __init__(
        self,
        network: Network,
        broker: BrokerAccess,
        settings: Settings,
        scope: EnvelopeSource,
        inbox: Inbox,
        channels: Channels = CHANNELS,
    ) -> None:
        self._require_sealed = settings.require_sealed
        self._channels = channels
        self._network = network
        self._broker = broker
        self._prefix = settings.prefix
        self._scope = scope
        self._inbox = inbox
        self._session = ""
        self._sessions: set[str] = set()
        self._due_birth: str | None = None
        """The session whose birth waits for the connection for updates."""
        self._permitted_session: str | None = None
        """The only session that may publish: in each new one, another aggregator may have taken over."""
        self._rival_topics = tuple(t.build(settings.prefix, topic()) for topic in RIVAL_TOPICS)
        self._predecessor: m.AggregatorPresence | None = None
        self._updates_subscribed = False
        self._control: Connection | None = None
        self._updates: Connection | None = None
        self._retained = RetainedMessages(self._publish_retained)
        self._leftovers = Leftovers(settings.prefix, scope, channels)
        self._signer = None if broker.kit is None else broker.kit.signer()
        self._uncounted_topics: set[str] = set()
        """Topics that only watchers read; their bytes are not counted."""
        self.bytes_up = 0
        """Bytes of the updates and chunks that have come; the loop counts them."""
        self.bytes_down = 0
        """Bytes of the payloads that were published, except for watchers."""

    # --- connecting ---------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> None:
        """Opens the control connection, with one attempt of at most ``timeout`` seconds.

        Raises what ``Connection.wait_connected`` raises.
        """
        self._control = self._network.connect(
            self._settings("control", self._new_will), self._event_handler("control")
        )
        self._control.wait_connected(timeout, first_attempt_only=True)

    def connect_updates(self) -> None:
        """Starts the connection for updates, once no other run uses the prefix. The outcome comes through the inbox."""
        self._updates = self._network.connect(self._settings("updates", None), self._event_handler("updates"))

    def _settings(
        self, name: ConnectionName, will: Callable[[], mqtt.Will] | None
    ) -> mqtt.ConnectionSettings:
        mqtt_client_id = self._broker.mqtt_client_id
        if mqtt_client_id is not None and name == "updates":
            mqtt_client_id += "-updates"
        return self._broker.connection_settings(
            will,
            mqtt_client_id=mqtt_client_id,
            maximum_packet_size=MAX_CONTROL_PACKET if name == "control" else m.MAX_PACKET,
            max_queued=100_000,
            max_queued_bytes=MAX_QUEUED_BYTES,
        )

    def _new_will(self) -> mqtt.Will:
        """Begins a session and returns its will.

        Each connection is a session of its own, so that an old will says nothing about a new one.
        """
        self._session = secrets.token_hex(8)
        self._sessions.add(self._session)
        topic, payload = self._encode(t.AggregatorTopic(), self.presence("offline"))
        return mqtt.Will(topic, b"".join(payload))

    def _event_handler(self, name: ConnectionName) -> Callable[[mqtt.ConnectionEvent], None]:
        def put(event: mqtt.ConnectionEvent) -> None:
            self._inbox.put(name, event)

        return put

    def presence(self, state: m.PresenceState) -> m.AggregatorPresence:
        """Returns the birth or the will of the present session."""
        scope = self._scope
        return m.AggregatorPresence(
            state=state,
            session=self._session,
            run=scope.run,
            incarnation=scope.incarnation,
            started=scope.started,
            sealed=self._require_sealed,
        )

    def is_own(self, presence: m.AggregatorPresence) -> bool:
        """Whether a birth or a will is of a session of this aggregator, which may have ended."""
        return presence.session in self._sessions

    @property
    def maximum_packet_size(self) -> int:
        """Bytes of the largest packet that the broker accepts, as far as it has said."""
        limits = None if self._control is None else self._control.limits
        return MAX_MQTT_PACKET if limits is None else limits.maximum_packet_size

    @property
    def account(self) -> str:
        """As whom the broker knows the aggregator."""
        return self._broker.account

    @property
    def connected(self) -> bool:
        """Whether the control connection is up; may be read on any thread."""
        return self._control is not None and self._control.limits is not None

    def subscribe_to_rivals(self) -> None:
        """Subscribes to what another aggregator under this prefix publishes.

        A message that the broker had stored has the retain flag, and no other: only the others show that it is alive.
        """
        self._leftovers.subscribed_again(self._rival_topics, time.monotonic())
        self._subscribe("control", [(topic, 1) for topic in self._rival_topics], no_local=True)

    def replace_aggregator(self, other: m.AggregatorPresence) -> None:
        """Declares another aggregator offline right before the next birth, since its edges stay with it until then."""
        self._predecessor = other.model_copy(update={"state": "offline"})

    @property
    def may_publish(self) -> bool:
        """Whether the present session has begun, and nothing is withheld."""
        return self._permitted_session == self._session

    def withhold(self) -> str:
        """Drops what is published from now on; returns the session to `permit` when it may go on."""
        self._permitted_session = None
        return self._session

    def permit(self, session: str) -> None:
        """Publishes again in ``session``, unless the connection has been lost since."""
        self._permitted_session = session

    def begin_session(self) -> None:
        """Subscribes, and publishes the birth and all retained messages. `subscribe_to_rivals` comes first.

        It waits until the connection for updates is back as well: edges offer their updates again as soon as they are
        admitted, and an offer without a subscriber is lost until they repeat it.
        """
        if self._updates is not None and not self._updates_subscribed:
            self._due_birth = self.withhold()
            return
        self._begin(self._session)

    @property
    def awaits_updates(self) -> bool:
        """Whether the present session begins as soon as the connection for updates is back."""
        return self._due_birth == self._session

    def _begin(self, session: str) -> None:
        self._due_birth = None
        self._leftovers.session_begun(time.monotonic())
        self._subscribe("control", self._edge_filters(bulk=False))
        # Other clients may write to our own topics; that is repaired.
        rest = [
            row
            for row in self._channels.rows
            if row.sender != "edge" and row.reads("aggregator") and row.topic not in RIVAL_TOPICS
        ]
        filters = self._channels.filters(self._prefix, rest)
        self._subscribe("control", filters, no_local=True, retain_as_published=True)
        self.permit(session)
        self.retain(t.AggregatorTopic(), self.presence("online"))
        self._retained.publish_all(but=self.topic(t.AggregatorTopic()))

    def subscribe_to_updates(self) -> None:
        """Subscribes to what carries updates, on each connect of the connection for updates.

        Then it begins the session, if that has waited for this.
        """
        self._updates_subscribed = self._subscribe("updates", self._edge_filters(bulk=True))
        if self._updates_subscribed and self._due_birth is not None:
            self._begin(self._due_birth)

    def _edge_filters(self, *, bulk: bool) -> list[tuple[str, int]]:
        rows = [row for row in self._channels.between("edge", "aggregator") if row.bulk is bulk]
        return self._channels.filters(self._prefix, rows)

    def updates_connection_lost(self) -> None:
        """Records that the connection for updates is lost, so that the next session waits for it."""
        self._updates_subscribed = False

    def repair_if_foreign(self, topic: str, payload: bytes | memoryview, *, retained: bool) -> bool:
        """Repairs a topic of ours on which a foreign message is retained; false if somebody else published it.

        It may be our own, also of an earlier run (`Leftovers`), a mistake, or an attack; edges must not find it. Of the
        topics of `subscribe_to_rivals` it is not known which message is retained, so all are repaired.
        """
        if not retained and topic not in self._rival_topics:
            return self._leftovers.is_echo(topic, payload)
        if payload == self._retained.payload(topic):
            return True
        now = time.monotonic()
        is_innocent = self._leftovers.is_echo(topic, payload) or self._leftovers.take(topic, payload, now)
        self.repair(topic)
        return is_innocent

    def repair(self, topic: str) -> None:
        """Publishes our retained message on a topic again, or clears the topic; at most once a second."""
        self._retained.repair(topic)

    def edge_registered(self) -> None:
        """Records that an edge has registered: nothing that an earlier run left is expected any more."""
        self._leftovers.edge_registered()

    def run_due_repairs(self) -> None:
        """Performs the repairs that were put off because their topic had just been repaired, once they are `due`."""
        now = time.monotonic()
        self._log_leftovers(now)
        self._retained.run_due_repairs(now)

    def due(self) -> float:
        """Returns when `run_due_repairs` does something; ∞ for never. The clock is ``time.monotonic``."""
        return min(self._leftovers.due(), self._retained.due())

    def _log_leftovers(self, now: float) -> None:
        if summary := self._leftovers.pop_summary(now):
            LOG.info("%s", summary)

    def clear_foreign(self, topic: str) -> None:
        """Clears a retained message on a topic where nothing may be retained."""
        self._publish(topic, (), retain=True)

    def _subscribe(self, name: ConnectionName, filters: list[tuple[str, int]], **options: bool) -> bool:
        connection = self._control if name == "control" else self._updates
        return connection is not None and connection.subscribe(filters, **options)

    # --- publishing ---------------------------------------------------------------------------------------

    def parse(self, topic: str) -> t.Topic | None:
        """Returns the topic in a text, null if it is not one of ours, or not under the prefix of the run."""
        return self._channels.parse(self._prefix, topic)

    def topic(self, topic: t.Topic) -> str:
        """Returns the topic's text, under the prefix of the run."""
        return t.build(self._prefix, topic)

    def send(self, topic: t.Topic, message: m.Message, correlation: bytes | None = None) -> None:
        """Publishes a message that is not retained. ``correlation``: the Correlation Data of what it answers."""
        self._publish(*self._encode(topic, message), retain=False, correlation=correlation)

    def retain(self, topic: t.Topic, message: m.Message, *, counted: bool = True) -> None:
        """Publishes a retained message, and again on every connect until it is cleared.

        ``counted``: whether its bytes are part of a round's cost; messages that only watchers read are not.
        """
        text, payload = self._encode(topic, message)
        if not counted:
            self._uncounted_topics.add(text)
        self._retained.retain(text, payload, lambda: payload)

    def retain_outside(self, topic: str, payload: bytes) -> None:
        """Publishes a retained message that is not of the protocol, and again on every connect."""
        self._uncounted_topics.add(topic)
        self._retained.retain(topic, (payload,), lambda: (payload,))

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        """Publishes a large retained message, which is made again each time it has to be repeated."""
        self._retained.retain(*self._encode(topic, make()), lambda: self._encode(topic, make())[1])

    def _encode(self, topic: t.Topic, message: m.Message) -> tuple[str, Pieces]:
        """Returns the topic as text and the payload, signed if the channel requires it and we have a kit."""
        text, pieces = self.topic(topic), codec.encode_pieces(message, self._channels)
        if self._signer is not None and self._channels.of(topic).signed:
            return text, (self._signer.sign(text, b"".join(pieces)),)
        return text, pieces

    def clear(self, topic: t.Topic) -> None:
        """Clears a message that we retain; does nothing if we retain none on the topic."""
        text = self.topic(topic)
        if self._retained.clear(text):
            self._uncounted_topics.discard(text)

    def _publish_retained(self, topic: str, payload: Pieces) -> None:
        if topic == self.topic(t.AggregatorTopic()) and self._predecessor is not None:
            self.send(t.AggregatorTopic(), self._predecessor)
            self._predecessor = None
        self._publish(topic, payload, retain=True)

    def _publish(
        self, topic: str, payload: Pieces, *, retain: bool, correlation: bytes | None = None
    ) -> None:
        if self._control is None or not self.may_publish:
            return
        self._leftovers.published(topic, *payload)
        if topic not in self._uncounted_topics:
            self.bytes_down += sum(map(len, payload))
        publish_waiting(self._control, topic, payload, retain=retain, correlation=correlation)

    def close(self) -> None:
        """Publishes that we are offline, retained, so that no will is needed; then disconnects.

        Without a birth there is nothing to publish.
        """
        self._log_leftovers(math.inf)
        if self.may_publish:
            self._publish(*self._encode(t.AggregatorTopic(), self.presence("offline")), retain=True)
        self._close(graceful=True)

    def abandon(self) -> None:
        """Ends the connections as if the program had died: nothing more is published, and the broker sends the will."""
        self.withhold()
        self._close(graceful=False)

    def _close(self, *, graceful: bool) -> None:
        for connection in (self._updates, self._control):
            if connection is not None:
                connection.close(graceful=graceful)
