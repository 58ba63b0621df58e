"""One edge's connection: a session name of its own for each attempt, and the topics that it listens to."""

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
    """Connected, under this session name."""

    session: str
    maximum_packet_size: int


EdgeConnectionEvent = EdgeConnected | mqtt.Lost | mqtt.ConnectRefused | mqtt.Received | mqtt.Subscribed


def new_session() -> str:
    return secrets.token_hex(8)


class EdgeConnection:
    """``post`` is called on the network thread, and may only enqueue.

    ``new_sealer``: how all that may be sealed is sealed, anew for each connection; null: it is not.
    """

    def __init__(
        self,
        network: Network,
        settings: mqtt.ConnectionSettings,
        prefix: str,
        client: str,
        roles: Sequence[m.ClientRole],
        post: Callable[[EdgeConnectionEvent], None],
        new_sealer: Callable[[], Sealer] | None = None,
        channels: Channels = CHANNELS,
    ) -> None:
        self.client = client
        self._channels = channels
        self.is_connected = False
        self._prefix = prefix
        self._roles = roles
        self._post = post
        self._new_sealer = new_sealer
        self._sealer: Sealer | None = None
        self._session = ""
        self._connection = network.connect(replace(settings, will=self._new_will), self._on_event)

    def _new_will(self) -> mqtt.Will:
        """Called for each connection: the will of one that was lost must not pass for one of the next."""
        self._session = new_session()
        self._sealer = None if self._new_sealer is None else self._new_sealer()
        will = m.ClientPresence(client=self.client, state="offline", session=self._session)
        return mqtt.Will(t.build(self._prefix, t.PresenceTopic(self.client)), codec.encode(will))

    def _on_event(self, event: mqtt.ConnectionEvent) -> None:
        match event:
            case mqtt.Connected(maximum_packet_size=largest):
                self._post(EdgeConnected(self._session, largest))
            case mqtt.Lost() | mqtt.ConnectRefused() | mqtt.Received() | mqtt.Subscribed():
                self._post(event)

    def subscribe(self) -> None:
        """Subscribes to what the aggregator says to an edge of these roles, but the pieces of models (see `ask`)."""
        self._subscribe([row for row in self._channels.between("aggregator", "edge") if not row.bulk])

    def subscribe_to_presence(self) -> None:
        """To be called after the birth: what is retained there before that, is of the last session."""
        self._subscribe(self._channels.between("edge", "edge"))

    def _subscribe(self, rows: Sequence[Channel]) -> None:
        mine = [row for row in rows if not set(row.roles).isdisjoint(self._roles)]
        self._connection.subscribe(self._channels.filters(self._prefix, mine, self.client))

    def essential_filters(self, refused: Sequence[str]) -> list[str]:
        """Those of ``refused`` without which there is no use in going on."""
        vital = {t.build(self._prefix, t.RepliesTopic(self.client)), t.build(self._prefix, t.ModelTopic())}
        return [name for name in refused if name in vital]

    def change_subscriptions(self, subscribe: Sequence[t.Topic], unsubscribe: Sequence[t.Topic]) -> None:
        """For the topics of models. What the queue does not take is asked for again, when it has not come."""
        try:
            if unsubscribe:
                self._connection.unsubscribe([t.build(self._prefix, topic) for topic in unsubscribe])
            if subscribe:
                self._connection.subscribe([(t.build(self._prefix, topic), 1) for topic in subscribe])
        except QueueFull as error:
            LOG.warning("will request chunks of the model later: %s", error, extra={"client": self.client})

    def send(self, topic: t.Topic, message: m.Message, *, retain: bool) -> None:
        """What cannot be sent is dropped: all that matters is repeated until it is answered."""
        text, payload = t.build(self._prefix, topic), codec.encode(message, self._channels)
        if self._channels.of(topic).sealable:
            payload = self._sealed(text, payload)
        try:
            self._connection.publish(text, payload, qos=1, retain=retain)
        except (QueueFull, MessageTooLarge) as error:
            LOG.warning(
                "%s not sent, will repeat it until it is answered: %s",
                message.kind,
                error,
                extra={"client": self.client},
            )

    def _sealed(self, topic: str, payload: bytes) -> bytes:
        return payload if self._sealer is None else self._sealer.seal(topic, payload)

    def send_chunks(self, ask: SendChunks) -> None:
        """Chunks that the queue does not take are granted again, when they have not come."""
        topic = t.build(self._prefix, t.UpdatesTopic(self.client))
        for number, index in enumerate(ask.chunks):
            chunk = upload.chunk_message(
                ask.sender, ask.first_seq + number, ask.update, ask.chunk_size, index
            )
            try:
                self._connection.publish(topic, self._sealed(topic, codec.encode(chunk)), qos=1)
            except (QueueFull, MessageTooLarge) as error:
                left = len(ask.chunks) - number
                LOG.warning(
                    "%d chunks not sent, the aggregator will request them again: %s",
                    left,
                    error,
                    extra={"client": self.client},
                )
                return

    def close(self, timeout: float) -> None:
        """Ends the connection in the background; what was sent goes out first, the will does not."""
        self.is_connected = False
        threading.Thread(
            target=self._connection.close,
            kwargs={"graceful": True, "timeout": timeout},
            name=f"close-{self.client}",
            daemon=True,
        ).start()
