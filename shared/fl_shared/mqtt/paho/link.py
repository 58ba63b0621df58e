"""One TCP connection to a broker: a paho client that the network thread drives.

Two things that paho does are prevented by construction. A client lives for one TCP connection and is
discarded with it, so nothing queued or unacknowledged is sent again after a reconnect. And our window
(`outbox`) replaces paho's, which is fixed before the broker announces its Receive Maximum.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fl_shared.errors import ServerRequiresTls
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.diagnosis import NO_ROOM, account_hint, diagnose
from fl_shared.mqtt.event_loop import NetworkThread
from fl_shared.mqtt.events import (
    MAX_MQTT_PACKET,
    Connected,
    ConnectionSettings,
    ConnectRefused,
    Received,
    Subscribed,
)
from fl_shared.mqtt.outbox import Outbox, Outgoing, Publish, Subscribe
from fl_shared.mqtt.paho.compatibility import client_class
from fl_shared.mqtt.paho.fast_client import FastClient
from fl_shared.mqtt.paho.options import configure_client, connect_properties, publish_properties
from fl_shared.mqtt.paho.property_reader import PACKED_SIZE  # the import also replaces functions of paho
from fl_shared.mqtt.paho.publish_packet import MIN_VIEW_BYTES

LOG = logging.getLogger(__name__)

FINAL_REFUSALS: Final = frozenset(
    {0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x99, 0x9A, 0x9B, 0x9C, 0x9D}
)
"""Reason codes of CONNACK that would come again. The others mean "busy", "quota" or nothing."""
_ACCOUNT_REFUSALS: Final = frozenset({0x86, 0x87, 0x8A, 0x8C})
_NO_ROOM_REFUSALS: Final = frozenset({0x89, 0x97})
"""Server busy, quota exceeded (MQTT 5, 3.2.2.2)."""
_PROTOCOL_ERROR: Final = 0x82
_KEEPALIVE_TIMEOUT: Final = 0x8D


class PahoLink:
    """A paho client as a `Link`. All methods but `open` and `put` run on the network thread."""

    def __init__(self, thread: NetworkThread, connection: Connection) -> None:
        self._thread = thread
        self._owner = connection
        self._outbox = Outbox(connection.settings.max_queued, connection.settings.max_queued_bytes, window=0)
        self._client = self._new_client(connection.settings, connection.client_id)
        self._watched_socket: Any = None
        self._pending: Callable[[], int] | None = None
        self._read_scheduled = False
        self._blocked = False
        self._flush_scheduled = False
        self._finishing = False
        self._ended = False
        self._is_up = False
        self._drained_at = float("-inf")
        self._reason: str | None = None
        self._refusal: ConnectRefused | None = None
        self._unacknowledged_topics: dict[int, str] = {}
        self._pending_subscriptions: dict[int, tuple[str, ...]] = {}

    def _new_client(self, settings: ConnectionSettings, client_id: str) -> Client:
        client = client_class()(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            transport="websockets" if settings.address.is_websocket else "tcp",
        )
        configure_client(client, settings)
        if settings.address.is_websocket:
            client.ws_set_options(settings.address.path)
        client.max_inflight_messages_set(0)  # without a limit: our outbox keeps the window
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        # With this callback, paho never writes to the socket by itself; `_run_step` asks `want_write`.
        client.on_socket_register_write = lambda *_: None
        return client

    def open(self) -> None:
        settings = self._owner.settings
        address, properties = settings.address, connect_properties(settings)
        self._client.connect(
            address.host, address.port, settings.keepalive, clean_start=True, properties=properties
        )

    def start(self) -> None:
        sock = self._client.socket()
        assert sock is not None
        self._watched_socket = sock
        self._pending = getattr(sock, "pending", None)
        self._thread.loop.add_reader(sock, self._on_readable)
        self._run_step(self._client.loop_write)

    @property
    def receiving_at(self) -> float | None:
        return self._client.receiving_at if isinstance(self._client, FastClient) else None

    def put(self, item: Outgoing, size: int = 0) -> bool:
        is_queued = self._outbox.put(item, size)
        if is_queued and not self._flush_scheduled:
            # `_flush` clears the flag before it reads the outbox: what it misses finds the flag cleared.
            self._flush_scheduled = True
            self._thread.post(self._flush)
        return is_queued

    def finish(self) -> None:
        self._finishing = True
        self._run_step(lambda: None)

    def abort(self, reason: str, *, send_disconnect: bool = False) -> None:
        if self._ended:
            return
        self._reason = self._reason or reason
        if send_disconnect:
            self._outbox.close()
            self._run_step(self._client.disconnect)
        if self._client.socket() is not None:
            # paho's only public way to close the socket without a DISCONNECT: it prepares another connection.
            self._client.connect_async(self._owner.settings.address.host, self._owner.settings.address.port)
        self._end()

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._run_step(lambda: None)

    def _on_readable(self) -> None:
        self._run_step(self._client.loop_read)
        # Bytes that TLS or a WebSocket has read ahead do not make the socket readable.
        if (
            self._watched_socket is not None
            and self._pending is not None
            and not self._read_scheduled
            and self._pending()
        ):
            self._read_scheduled = True
            self._thread.loop.call_soon(self._read_buffered)

    def _read_buffered(self) -> None:
        self._read_scheduled = False
        if self._watched_socket is not None:
            self._on_readable()

    def _on_writable(self) -> None:
        # The full socket buffer has drained: the broker still receives, however slowly.
        self._drained_at = time.monotonic()
        self._run_step(self._client.loop_write)

    def _tick(self) -> None:
        """Runs paho's timers, every eighth of the keepalive."""
        if self._ended:
            return
        keepalive = self._client.keepalive
        self._thread.call_later(max(0.1, keepalive / 8), self._tick)
        # A PINGREQ waits behind all that is being sent; on a slow link, paho takes the broker for dead.
        if time.monotonic() - self._drained_at > keepalive / 2:
            self._run_step(self._client.loop_misc)

    def _run_step(self, step: Callable[[], object]) -> None:
        """Calls paho once, then does everything that has become possible by it."""
        if self._ended:
            return
        client = self._client
        try:
            step()
            self._send_waiting()
            if self._finishing and self._outbox.idle and not client.want_write():
                self._finishing = False
                client.disconnect()
            if client.want_write() and not self._blocked:
                client.loop_write()
        except Exception as error:
            self._thread.fail(error)
            self.abort("an error in this program")
            return
        if client.socket() is None:
            self._end()
        elif client.want_write() != self._blocked and self._watched_socket is not None:
            self._blocked = not self._blocked
            if self._blocked:
                self._thread.loop.add_writer(self._watched_socket, self._on_writable)
            else:
                self._thread.loop.remove_writer(self._watched_socket)

    def _send_waiting(self) -> None:
        while self._client.socket() is not None and (next_item := self._outbox.pop_sendable()) is not None:
            item, size = next_item
            if isinstance(item, Publish):
                properties = publish_properties(item.response_topic, item.correlation_data, item.expiry)
                if isinstance(self._client, FastClient):
                    info = self._client.publish_pieces(
                        item.topic, item.pieces, item.qos, item.retain, properties
                    )
                else:
                    payload = b"".join(item.pieces)
                    info = self._client.publish(item.topic, payload, item.qos, item.retain, properties)
                if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                    self._outbox.mark_sent(info.mid, size, awaits_ack=item.qos > 0)
                    self._unacknowledged_topics[info.mid] = item.topic
                    continue
            elif isinstance(item, Subscribe):
                _, mid = self._client.subscribe(
                    [
                        (name, SubscribeOptions(qos, item.no_local, item.retain_as_published))
                        for name, qos in item.filters
                    ]
                )
                if mid is not None:
                    self._pending_subscriptions[mid] = tuple(name for name, _ in item.filters)
            else:
                self._client.unsubscribe(list(item.filters))
            self._outbox.release(size)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._outbox.close()
        reason, is_permanent = self._reason, False
        cause = getattr(self._client, "cause", None)
        if reason is None and self._is_up:
            reason = "the connection was closed"
        elif isinstance(cause, ssl.SSLError | ServerRequiresTls):
            diagnosis = diagnose(cause, self._owner.settings)
            reason, is_permanent = diagnosis.reason, diagnosis.is_permanent
        if reason is None:
            self._owner.link_ended_unanswered(self)
            return
        self._owner.link_ended(self, reason, self._refusal, is_permanent=is_permanent)

    # --- paho's callbacks: paho holds a lock meanwhile that closing the socket needs, too -----------------

    def _on_socket_open(self, _client: Client, _data: Any, sock: Any) -> None:
        if isinstance(sock, socket.socket):  # otherwise `stream` has done it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        if self._watched_socket is not None:
            self._thread.loop.remove_reader(sock)
            self._thread.loop.remove_writer(sock)
            self._watched_socket = None

    def _on_connect(
        self,
        _client: Client,
        _data: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            settings = self._owner.settings
            self._reason = f"{settings.address} refused the connection: {code} (0x{code.value:02x})"
            if code.value in _ACCOUNT_REFUSALS:
                self._reason += f"; {account_hint(settings)}"
            if code.value in _NO_ROOM_REFUSALS:
                self._reason += f"; {NO_ROOM}"
            if code.value in FINAL_REFUSALS:
                self._refusal = ConnectRefused(self._reason, code.value)
            return
        limits = Connected(
            maximum_packet_size=getattr(properties, "MaximumPacketSize", MAX_MQTT_PACKET),
            receive_maximum=getattr(properties, "ReceiveMaximum", 65_535),
            keepalive=self._client.keepalive,
            shared_subscriptions=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
        )
        settings = self._owner.settings
        self._outbox = Outbox(settings.max_queued, settings.max_queued_bytes, limits.receive_maximum)
        self._is_up = True
        self._thread.call_later(0, self._tick)
        self._owner.link_up(self, limits)

    def _on_disconnect(
        self,
        _client: Client,
        _data: Any,
        flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._reason = f"the broker closed the connection: {code}"
        elif code.value == _KEEPALIVE_TIMEOUT:
            self._reason = f"nothing received from the broker for {self._client.keepalive} s"
        elif code.value == _PROTOCOL_ERROR and self._reason is None:
            address = self._owner.settings.address
            other = (
                "" if address.is_websocket else f", or a port for WebSockets (ws://{address.host_and_port})"
            )
            self._reason = f"{address} sends something that is not MQTT 5: is it a broker{other}?"

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            LOG.warning("dropped a message of %d bytes: its topic is not UTF-8", len(message.payload))
            return
        # `FastClient` gives a view, paho bytes: here both become the same type.
        large = len(message.payload) >= MIN_VIEW_BYTES
        payload = memoryview(message.payload).toreadonly() if large else bytes(message.payload)
        properties = message.properties
        self._owner.emit(
            Received(
                topic,
                payload,
                message.retain,
                message.qos,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                getattr(message, "packet_size", None)
                or len(topic) + getattr(properties, PACKED_SIZE, 0) + len(payload),
            )
        )

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, code: ReasonCode, _properties: Properties
    ) -> None:
        size = self._outbox.mark_acknowledged(mid)
        topic = self._unacknowledged_topics.pop(mid, None)
        if code.is_failure and topic is not None:
            self._owner.refused_publishes.count(topic, size, code.value, str(code))

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, codes: list[ReasonCode], _properties: Properties
    ) -> None:
        self._owner.emit(
            Subscribed(self._pending_subscriptions.pop(mid, ()), tuple(code.value for code in codes))
        )
