"""Connects one edge to the broker, under a new session name at each attempt, and subscribes to its topics."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fl_edge.session.effects import SendChunks
from fl_shared.errors import MessageTooLarge, QueueFull
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.outbox import Payload, Pieces
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels
from fl_shared.transfer import upload

if TYPE_CHECKING:
    from fl_shared.security.sealing import Sealer

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EdgeConnected:
    """The broker has accepted the connection, under this session name.

    ``maximum_packet_size`` is the largest packet that the broker accepts, in bytes.
    """

    session: str
    maximum_packet_size: int


EdgeConnectionEvent = EdgeConnected | mqtt.Lost | mqtt.ConnectRefused | mqtt.Received | mqtt.Subscribed


def new_session() -> str:
    """Returns a random session name of 16 hexadecimal digits."""
    return secrets.token_hex(8)


class EdgeConnection:
    """The connection of one edge's session to the broker, which is opened again whenever it is lost.

    ``enqueue`` gets each event on the network thread, and must only enqueue it. ``new_sealer`` makes the
    sealer of one connection, which seals every message that may be sealed; ``None`` if nothing is sealed.
    ``via``: the name of the broker, if its bridge is to be observed.
    """

    def __init__(
        self,
        network: Network,
        settings: mqtt.ConnectionSettings,
        prefix: str,
        client: str,
        roles: Sequence[m.ClientRole],
        enqueue: Callable[[EdgeConnectionEvent], None],
        new_sealer: Callable[[], Sealer] | None = None,
        channels: Channels = CHANNELS,
        via: str | None = None,
    ) -> None:
        self.client = client
        self._via = via
        self.account = settings.account
        self._channels = channels
        self.is_connected = False
        self._prefix = prefix
        self._roles = roles
        self._post = enqueue
        self._new_sealer = new_sealer
        self._sealer: Sealer | None = None
        self._session = ""
        self._connection = network.connect(replace(settings, will=self._new_will), self._on_event)

    def _new_will(self) -> mqtt.Will:
        """Makes the will of the next connection, under a new session name.

        Each connection needs its own: the will of a lost one must not be taken for one of its successor.
        """
        self._session = new_session()
        self._sealer = None if self._new_sealer is None else self._new_sealer()
        will = m.ClientPresence(client=self.client, state="offline", session=self._session)
        return mqtt.Will(t.build(self._prefix, t.PresenceTopic(self.client)), codec.encode(will))

    def _on_event(self, event: mqtt.ConnectionEvent) -> None:
        match event:
            case mqtt.Connected(maximum_packet_size=maximum_packet_size):
                self._post(EdgeConnected(self._session, maximum_packet_size))
            case mqtt.Lost() | mqtt.ConnectRefused() | mqtt.Received() | mqtt.Subscribed():
                self._post(event)

    def subscribe(self) -> None:
        """Subscribes to what the aggregator sends to edges with these roles, except the chunks of models.

        Also to what the operator asks this edge.
        """
        rows = (*self._channels.between("aggregator", "edge"), *self._channels.between("operator", "edge"))
        self._subscribe([row for row in rows if not row.bulk])
        if self._via is not None:
            self._connection.subscribe([(t.build(self._prefix, t.BrokerTopic(self._via)), 1)])

    def subscribe_to_presence(self) -> None:
        """Subscribes to the edge's own presence; must be called after the birth was sent.

        Before that, the broker retains the presence of the last session.
        """
        self._subscribe(self._channels.between("edge", "edge"))

    def _subscribe(self, rows: Sequence[Channel]) -> None:
        mine = [row for row in rows if not set(row.roles).isdisjoint(self._roles)]
        self._connection.subscribe(self._channels.filters(self._prefix, mine, self.client))

    def essential_filters(self, refused: Sequence[str]) -> list[str]:
        """Returns the refused filters without which the edge cannot work."""
        essential = {
            t.build(self._prefix, t.RepliesTopic(self.client)),
            t.build(self._prefix, t.ModelTopic()),
        }
        return [name for name in refused if name in essential]

    @property
    def receiving_at(self) -> float | None:
        """See `Connection.receiving_at`."""
        return self._connection.receiving_at

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        """Changes the subscriptions to the topics of models.

        If the queue has no room for a request, it is logged and dropped; the model's download repeats it
        later.
        """
        try:
            if unsubscribe:
                self._connection.unsubscribe([t.build(self._prefix, topic) for topic in unsubscribe])
            if subscribe:
                self._connection.subscribe([(t.build(self._prefix, topic), 1) for topic in subscribe])
        except QueueFull as error:
            LOG.warning("will request chunks of the model later: %s", error, extra={"client": self.client})

    def send(self, topic: t.Topic, message: m.Message, *, retain: bool, sealer: Sealer | None = None) -> None:
        """Publishes a message, sealed if it may be. ``sealer``: seals what is not for the aggregator.

        A message that cannot be sent is dropped, since all that matter are repeated until they are answered.
        """
        text, row = t.build(self._prefix, topic), self._channels.of(topic)
        pieces = codec.encode_pieces(message, self._channels)
        payload = self._sealed(text, pieces) if row.sealable else pieces
        if sealer is not None:
            payload = sealer.seal(text, b"".join(pieces))
        try:
            self._connection.publish(text, payload, qos=row.published_qos, retain=retain)
        except (QueueFull, MessageTooLarge) as error:
            if row.published_qos == 0:
                return  # a line of the log about that would be the next one to send
            LOG.warning(
                "%s not sent, will repeat it until it is answered: %s",
                message.kind,
                error,
                extra={"client": self.client},
            )

    def _sealed(self, topic: str, pieces: Pieces) -> Payload:
        return pieces if self._sealer is None else self._sealer.seal(topic, b"".join(pieces))

    def send_chunks(self, effect: SendChunks) -> None:
        """Publishes granted chunks of an update, in the order of the effect.

        If the queue is full, the remaining chunks are dropped; the aggregator grants them again when they do
        not arrive.
        """
        topic = t.build(self._prefix, t.UpdatesTopic(self.client))
        for number, index in enumerate(effect.chunks):
            chunk = upload.chunk_message(
                effect.sender, effect.first_seq + number, effect.update, effect.chunk_size, index
            )
            try:
                self._connection.publish(topic, self._sealed(topic, codec.encode_pieces(chunk)), qos=1)
            except (QueueFull, MessageTooLarge) as error:
                unsent = len(effect.chunks) - number
                LOG.warning(
                    "%d chunks not sent, the aggregator will request them again: %s",
                    unsent,
                    error,
                    extra={"client": self.client},
                )
                return

    def close(self, timeout: float) -> None:
        """Closes the connection in the background: first sends what is queued, and then no will."""
        self.is_connected = False
        threading.Thread(
            target=self._connection.close,
            kwargs={"graceful": True, "timeout": timeout},
            name=f"close-{self.client}",
            daemon=True,
        ).start()
