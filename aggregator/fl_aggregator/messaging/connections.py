"""The aggregator's two connections, and what it keeps retained at the broker.

Updates come on a connection of their own, so that a will or a registration never waits behind them. The broker
may forget retained messages or revive cleared ones, so what is retained is remembered here and published again on
every connect, and what this run does not know is cleared.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Final

from fl_aggregator.messaging.inbox import ConnectionName, Inbox
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import MessageTooLarge, QueueFull
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.events import MAX_MQTT_PACKET
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels
from fl_shared.protocol.envelope import EnvelopeSource

LOG: Final = logging.getLogger(__name__)

PayloadFactory = Callable[[], bytes]
"""Makes a retained message's payload anew: a model's chunks are not kept a second time in memory."""

MAX_QUEUED_BYTES: Final = 64 * 2**20
PUBLISH_TIMEOUT: Final = 30.0
"""Seconds that a message waits for room in the queue before it is given up, to be said again when we reconnect."""
MAX_CONTROL_PACKET: Final = 2 * 2**20
"""Bytes that the broker may send us in one packet on the control connection; the updates' has its own limit."""
REPAIR_INTERVAL: Final = 1.0
"""Seconds between two repairs of one topic."""
MAX_REPAIRED_TOPICS: Final = 10_000


class Connections:
    """Publishes for the aggregator and puts what arrives into its inbox."""

    def __init__(
        self,
        network: Network,
        broker: BrokerAccess,
        prefix: str,
        scope: EnvelopeSource,
        inbox: Inbox,
        channels: Channels = CHANNELS,
    ) -> None:
        self._channels = channels
        self._network = network
        self._broker = broker
        self._prefix = prefix
        self._scope = scope
        self._inbox = inbox
        self._session = ""
        self._birth_published = False
        self._birth_is_due = False
        self._updates_subscribed = False
        self._control: Connection | None = None
        self._updates: Connection | None = None
        self._retained: dict[str, PayloadFactory] = {}
        self._repaired_at: dict[str, float] = {}
        self._pending_repairs: set[str] = set()
        self._signer = None if broker.kit is None else broker.kit.signer()
        self._uncounted_topics: set[str] = set()
        """Topics of what only watchers read."""
        self.bytes_up = 0
        self.bytes_down = 0

    # --- connecting ---------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> None:
        """Connects for control at the first attempt; raises what ``Connection.wait_connected`` raises."""
        self._control = self._network.connect(
            self._settings("control", self._new_will), self._event_handler("control")
        )
        self._control.wait_connected(timeout, once=True)

    def connect_updates(self) -> None:
        """Begins to connect for updates, once it is known that this run may have the prefix.

        What becomes of it comes by the inbox: a broker that has just gone away holds nobody up.
        """
        self._updates = self._network.connect(self._settings("updates", None), self._event_handler("updates"))

    def _settings(
        self, lane: ConnectionName, will: Callable[[], mqtt.Will] | None
    ) -> mqtt.ConnectionSettings:
        mqtt_client_id = self._broker.mqtt_client_id
        if mqtt_client_id is not None and lane == "updates":
            mqtt_client_id += "-updates"
        return self._broker.connection_settings(
            will,
            mqtt_client_id=mqtt_client_id,
            maximum_packet_size=MAX_CONTROL_PACKET if lane == "control" else m.MAX_PACKET,
            max_queued=100_000,
            max_queued_bytes=MAX_QUEUED_BYTES,
        )

    def _new_will(self) -> mqtt.Will:
        """Each connection is a session of its own, so that an old will says nothing about a new one."""
        self._session = secrets.token_hex(8)
        return mqtt.Will(*self._encode(t.AggregatorTopic(), self._presence_message("offline")))

    def _event_handler(self, lane: ConnectionName) -> Callable[[mqtt.ConnectionEvent], None]:
        def put(event: mqtt.ConnectionEvent) -> None:
            self._inbox.put(lane, event)

        return put

    def _presence_message(self, state: m.PresenceState) -> m.AggregatorPresence:
        return m.AggregatorPresence(
            state=state, session=self._session, run=self._scope.run, incarnation=self._scope.incarnation
        )

    @property
    def maximum_packet_size(self) -> int:
        """Bytes of the largest packet that the broker takes, as far as it has said."""
        limits = None if self._control is None else self._control.limits
        return MAX_MQTT_PACKET if limits is None else limits.maximum_packet_size

    @property
    def connected(self) -> bool:
        """Whether the control connection is there; may be asked for in any thread."""
        return self._control is not None and self._control.limits is not None

    def subscribe_for_occupancy(self) -> None:
        """Before anything is published: is another run online under this prefix?"""
        self._subscribe("control", [(self.topic(t.AggregatorTopic()), 1), (self.topic(t.StatusTopic()), 1)])

    def begin_session(self) -> None:
        """On every connect of the control connection: listen, be born, and say again what is retained.

        Put off until the updates' connection is back, too: edges offer their updates again as soon as they are
        admitted, and what nobody listens to is lost until they repeat it.
        """
        self._birth_is_due = self._updates is not None and not self._updates_subscribed
        if self._birth_is_due:
            return
        self._subscribe("control", self._edge_filters(bulk=False))
        if self._control is not None:
            # Mosquitto 2.0 takes over nothing but the QoS from a second subscription to what is subscribed already.
            self._control.unsubscribe([self.topic(t.AggregatorTopic()), self.topic(t.StatusTopic())])
        # What others may write to the topics of our own is repaired.
        rest = [row for row in self._channels.rows if row.sender != "edge" and row.reads("aggregator")]
        self._subscribe("control", self._channels.filters(self._prefix, rest), foreign_only=True)
        self._birth_published = True
        self.retain(t.AggregatorTopic(), self._presence_message("online"))
        born = self.topic(t.AggregatorTopic())
        for topic, made in list(self._retained.items()):
            if topic != born:
                self._publish(topic, made(), retain=True)

    def subscribe_to_updates(self) -> None:
        """On every connect of the updates' connection."""
        self._updates_subscribed = self._subscribe("updates", self._edge_filters(bulk=True))
        if self._updates_subscribed and self._birth_is_due:
            self.begin_session()

    def _edge_filters(self, *, bulk: bool) -> list[tuple[str, int]]:
        rows = [row for row in self._channels.between("edge", "aggregator") if row.bulk is bulk]
        return self._channels.filters(self._prefix, rows)

    def updates_connection_lost(self) -> None:
        """When the updates' connection is lost."""
        self._updates_subscribed = False

    def repair_if_foreign(self, topic: str, payload: bytes | memoryview, *, retained: bool) -> bool:
        """Somebody else has written to a topic of ours: what we retain there is said again, or it is cleared.

        A ghost of an earlier life that a broker revived, a mistake, or malice: edges that come now must not find it.
        True if it is only what we say there ourselves.
        """
        if not retained:
            return False
        if payload == self._own_payload(topic):
            return True
        if len(self._repaired_at) >= MAX_REPAIRED_TOPICS:
            self._repaired_at.clear()
        if time.monotonic() - self._repaired_at.get(topic, -math.inf) < REPAIR_INTERVAL:
            self._pending_repairs.add(topic)  # `mend` does it: else what came second would stay
        else:
            self._repair(topic)
        return False

    def run_due_repairs(self) -> None:
        """To be called now and then: the repairs that were put off, since the topic had just had one."""
        now = time.monotonic()
        for topic in [
            one
            for one in self._pending_repairs
            if now - self._repaired_at.get(one, -math.inf) >= REPAIR_INTERVAL
        ]:
            self._repair(topic)

    def _repair(self, topic: str) -> None:
        self._pending_repairs.discard(topic)
        self._repaired_at[topic] = time.monotonic()
        ours = self._own_payload(topic)
        done = "replaced" if ours else "cleared"
        LOG.info("%s: %s a retained message left by an earlier run or another client", topic, done)
        self._publish(topic, ours, retain=True)

    def _own_payload(self, topic: str) -> bytes:
        made = self._retained.get(topic)
        return b"" if made is None else made()

    def clear_foreign(self, topic: str) -> None:
        """Clears a retained message where nothing is to be retained."""
        self._publish(topic, b"", retain=True)

    def _subscribe(
        self, lane: ConnectionName, filters: list[tuple[str, int]], *, foreign_only: bool = False
    ) -> bool:
        connection = self._control if lane == "control" else self._updates
        return connection is not None and connection.subscribe(filters, foreign_only=foreign_only)

    # --- publishing ---------------------------------------------------------------------------------------

    def topic(self, topic: t.Topic) -> str:
        return t.build(self._prefix, topic)

    def send(self, topic: t.Topic, message: m.Message) -> None:
        """To whoever listens now."""
        self._publish(*self._encode(topic, message), retain=False)

    def retain(self, topic: t.Topic, message: m.Message, *, counted: bool = True) -> None:
        """To whoever listens, now or later, until it is cleared.

        ``counted``: whether it is part of what a round has cost; what only watchers read is not.
        """
        text, payload = self._encode(topic, message)
        if not counted:
            self._uncounted_topics.add(text)
        self._retain(text, payload, lambda: payload)

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        """The same for a large message, which is made again each time that it has to be said again."""
        self._retain(*self._encode(topic, make()), lambda: self._encode(topic, make())[1])

    def _retain(self, text: str, payload: bytes, made: PayloadFactory) -> None:
        self._retained[text] = made
        self._publish(text, payload, retain=True)

    def _encode(self, topic: t.Topic, message: m.Message) -> tuple[str, bytes]:
        """Where it goes, and its payload: signed, if it is to be, and we have a kit."""
        text, payload = self.topic(topic), codec.encode(message, self._channels)
        if self._signer is not None and self._channels.of(topic).signed:
            payload = self._signer.sign(text, payload)
        return text, payload

    def clear(self, topic: t.Topic) -> None:
        text = self.topic(topic)
        if self._retained.pop(text, None) is not None:
            self._publish(text, b"", retain=True)
            self._uncounted_topics.discard(text)

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self._control is None:
            return
        if topic not in self._uncounted_topics:
            self.bytes_down += len(payload)
        deadline = time.monotonic() + PUBLISH_TIMEOUT
        while True:
            try:
                self._control.publish(topic, payload, qos=1, retain=retain)
                return
            except MessageTooLarge as error:
                LOG.warning(
                    "not published, and missing for its readers until the broker accepts it: %s", error
                )
                return
            except QueueFull as error:
                if time.monotonic() >= deadline:
                    # Edges repeat what is not answered, and what is retained is said again on the next connect.
                    LOG.warning(
                        "not published: %s: %s; edges will ask again, the rest is repeated after a reconnect",
                        topic,
                        error,
                    )
                    return
                time.sleep(0.002)

    def close(self) -> None:
        """Says goodbye: offline, retained, so that no will is needed. Who was never born here says nothing."""
        if self._birth_published:
            self._publish(*self._encode(t.AggregatorTopic(), self._presence_message("offline")), retain=True)
        for connection in (self._updates, self._control):
            if connection is not None:
                connection.close(graceful=True)
