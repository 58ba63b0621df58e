"""A paho client that does not copy payloads, for the version of paho that it was written for.

On receipt, paho 2.2 copies a message about six times (``bytearray +=``, ``struct.unpack``, slices), reads the
length of a packet from the socket one byte at a time, and builds a table of all 27 properties for every
packet. On sending, it copies a message once into the packet and then, at every ``send``, all the bytes that
are left. This client receives a large message into the buffer that the program gets, and sends it from the
buffer that the program gave; one read of the socket takes all small packets that have arrived. Rare packets
(QoS 2, everything but PUBLISH and a successful PUBACK) are left to paho. TLS and WebSockets are from
`stream`, since paho would copy them byte by byte.

It overrides private parts of paho, which `compatibility` checks first.
"""

from __future__ import annotations

import ssl
import time
from typing import Any, Final, cast

import numpy as np
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import MessageType, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fl_shared.errors import ServerRequiresTls
from fl_shared.mqtt.address import BrokerAddress, UrlScheme
from fl_shared.mqtt.outbox import Pieces
from fl_shared.mqtt.paho.publish_packet import MIN_VIEW_BYTES, PublishPacket, decode_publish
from fl_shared.mqtt.stream import Stream, open_stream
from fl_shared.mqtt.websocket import TLS_ALERT

READ_AHEAD: Final = 64 * 2**10
"""Bytes of one read if no large packet is expected, and of small packets that are sent as one."""
MAX_READS: Final = 16
"""Reads of one large packet before other connections have their turn."""

_ALIGNMENT: Final = 8
"""Bytes of the largest value in a vector."""
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_SCHEMES: Final[dict[tuple[bool, bool], UrlScheme]] = {
    (False, False): "mqtt",
    (True, False): "mqtts",
    (False, True): "ws",
    (True, True): "wss",
}
"""The scheme by (encrypted, in a WebSocket)."""
_PACKET_TYPE_MASK: Final = 0xF0
_OK: Final = MQTTErrorCode.MQTT_ERR_SUCCESS
_LOST: Final = MQTTErrorCode.MQTT_ERR_CONN_LOST
_SUCCESS: Final = ReasonCode(PacketTypes.PUBACK)
_TOO_LARGE: Final = ReasonCode(PacketTypes.DISCONNECT, "Packet too large")
_NO_PROPERTIES: Final = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


class _Message(MQTTMessage):
    """A received message without paho's condition variable, which would not be used.

    ``info``, ``state`` and ``timestamp`` do not exist. ``packet_size``: bytes of the whole packet.
    """

    __slots__ = ("packet_size",)

    def __init__(self, command: int, publication: PublishPacket, packet_size: int) -> None:
        self.packet_size = packet_size
        self._topic = publication.topic
        self.mid = publication.mid
        self.payload = publication.payload  # type: ignore[assignment]
        self.dup = bool(command & 0x08)
        self.qos = command >> 1 & 3
        self.retain = bool(command & 0x01)
        self.properties = None
        if publication.response_topic is not None or publication.correlation_data is not None:
            self.properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if publication.response_topic is not None:
                self.properties.ResponseTopic = publication.response_topic
            if publication.correlation_data is not None:
                self.properties.CorrelationData = publication.correlation_data


class FastClient(Client):
    """A client for MQTT 5, an external event loop and one connection; it ignores callbacks by topic."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread = b""
        self._body: memoryview | None = None
        self._body_command = 0
        self._filled = 0
        self._tail: dict[str, Any] | None = None
        self._has_received = False
        self._pieces: Pieces = ()
        self.cause: OSError | None = None
        """Why the stream ended, or None if it was just closed."""

    def _create_socket(self) -> Any:
        scheme = _SCHEMES[self._ssl, self._transport == "websockets"]
        path = self._websocket_path if self._transport == "websockets" else ""
        address = BrokerAddress(self._host, self._port, scheme=scheme, path=path)
        return open_stream(address, self._ssl_context, self._connect_timeout)

    # --- receiving ----------------------------------------------------------------------------------------

    @property
    def receiving_at(self) -> float | None:
        """When the last bytes of a packet came that is not complete yet (monotonic clock); null if there is none."""
        return None if self._body is None else self._last_bytes_received

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  paho's signature
        """Handles all packets that one read brings, or reads more of a large packet."""
        sock = cast(Stream | None, self._sock)
        if sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            rc = self._read_packets(sock) if self._body is None else self._read_body(sock, self._body)
        except MalformedPacket:
            rc = MQTTErrorCode.MQTT_ERR_PROTOCOL
        return self._loop_rc_handle(rc) if rc > 0 else _OK

    def _read_packets(self, sock: Stream) -> MQTTErrorCode:
        try:
            data = sock.recv(READ_AHEAD)
        except _WOULD_BLOCK:
            return _OK
        except OSError as error:
            self.cause = error
            return _LOST
        if not data:
            return _LOST
        self._record_receive()
        if not self._has_received:
            self._has_received = True
            if data[:1] == TLS_ALERT and not self._ssl:
                self.cause = ServerRequiresTls()
                return _LOST
        if self._unread:
            data, self._unread = self._unread + data, b""
        position, end = 0, len(data)
        while self._sock is not None and (extent := _packet_bounds(data, position)) is not None:
            start, stop = extent
            if stop > end:
                if stop - start < MIN_VIEW_BYTES:
                    break
                self._body = _aligned_at_its_end(stop - start)
                self._body_command, self._filled = data[position], end - start
                self._body[: end - start] = data[start:]
                return self._read_body(sock, self._body)
            rc = self._handle(data[position], data[start:stop])
            if rc > 0:
                return rc
            position = stop
        self._unread = data[position:]
        return _OK

    def _read_body(self, sock: Stream, body: memoryview) -> MQTTErrorCode:
        for _ in range(MAX_READS):
            try:
                count = sock.recv_into(body[self._filled :])
            except _WOULD_BLOCK:
                return _OK
            except OSError as error:
                self.cause = error
                return _LOST
            if not count:
                return _LOST
            self._record_receive()
            self._filled += count
            if self._filled == len(body):
                self._body = None
                return self._handle(self._body_command, body.toreadonly())
        return _OK

    def _record_receive(self) -> None:
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()

    def _handle(self, command: int, packet: bytes | memoryview) -> MQTTErrorCode:
        kind = command & _PACKET_TYPE_MASK
        if kind == MessageType.PUBLISH and not command & 0x04:
            publication = decode_publish(command, packet)
            if self._on_message is not None:
                with self._in_callback_mutex:
                    self._on_message(self, self._userdata, _Message(command, publication, len(packet)))
            return self._send_puback(publication.mid) if command & 0x02 else _OK
        # Mosquitto's `message_size_limit` answers 0x95, which no PUBACK may have, and paho would disconnect.
        if kind == MessageType.PUBACK and (
            len(packet) == 2 or (len(packet) > 2 and packet[2] == _TOO_LARGE.value)
        ):
            mid = int.from_bytes(packet[:2], "big")
            code = _SUCCESS if len(packet) == 2 else _TOO_LARGE
            with self._out_message_mutex:
                return self._do_on_publish(mid, code, _NO_PROPERTIES) if mid in self._out_messages else _OK
        self._in_packet = {
            "command": command,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(packet),
            "packet": bytearray(packet),
            "to_process": 0,
            "pos": 0,
        }
        return self._packet_handle()

    # --- sending ------------------------------------------------------------------------------------------

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self.cause = error
            if self._ssl and self._sock is not None:
                # A server that refuses our certificate sends an alert before it closes the connection.
                try:
                    self._sock.recv(1)
                except OSError as tls_error:
                    self.cause = tls_error if isinstance(tls_error, ssl.SSLError) else error
            raise

    def publish_pieces(
        self,
        topic: str,
        pieces: Pieces,
        qos: int,
        retain: bool,
        properties: Properties | None,
    ) -> MQTTMessageInfo:
        """Publishes ``pieces``, one after the other, as one payload. Large ones are sent from where they are."""
        self._pieces = (
            pieces  # for `_send_publish`, which `publish` calls at once: there is no limit of messages
        )
        try:
            return self.publish(topic, b"", qos, retain, properties)
        finally:
            self._pieces = ()

    def _send_puback(self, mid: int) -> MQTTErrorCode:
        return self._packet_queue(MessageType.PUBACK, b"\x40\x02" + mid.to_bytes(2, "big"), mid, 1)

    def _send_publish(
        self,
        mid: int,
        topic: bytes,
        payload: bytes | bytearray = b"",
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        info: MQTTMessageInfo | None = None,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        pieces = self._pieces or (payload,)
        extras = b"\0" if properties is None else properties.pack()  # type: ignore[no-untyped-call]
        packet = bytearray((MessageType.PUBLISH | dup << 3 | qos << 1 | retain,))
        size = sum(map(len, pieces))
        self._pack_remaining_length(packet, 2 + len(topic) + (2 if qos else 0) + len(extras) + size)
        packet += len(topic).to_bytes(2, "big")
        packet += topic
        if qos:
            packet += mid.to_bytes(2, "big")
        packet += extras
        buffers: list[bytearray | memoryview] = [packet]
        for piece in pieces:
            if len(piece) >= MIN_VIEW_BYTES:
                buffers.append(memoryview(piece))
            elif isinstance(buffers[-1], bytearray):
                buffers[-1] += piece
            else:
                buffers.append(bytearray(piece))
        # All but the last are queued with QoS 1: at QoS 0, paho would report the message as sent once the first is.
        for buffer in buffers[:-1]:
            self._packet_queue(MessageType.PUBLISH, buffer, mid, 1)  # type: ignore[arg-type]
        return self._packet_queue(MessageType.PUBLISH, buffers[-1], mid, qos, info)  # type: ignore[arg-type]

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        """Appends a small packet to the one before it, so that one ``send`` takes both.

        Not if paho does something after the packet is sent (DISCONNECT, PUBLISH at QoS 0), or if it is large.
        """
        kind = command & _PACKET_TYPE_MASK
        if (
            len(packet) >= MIN_VIEW_BYTES
            or kind == MessageType.DISCONNECT
            or (kind == MessageType.PUBLISH and not qos)
        ):
            return super()._packet_queue(command, packet, mid, qos, info)
        last_packet = self._tail
        if (
            last_packet is not None
            and self._out_packet
            and self._out_packet[-1] is last_packet
            and len(last_packet["packet"]) < READ_AHEAD
        ):
            last_packet["packet"] += packet
            last_packet["to_process"] += len(packet)
            return _OK
        rc = super()._packet_queue(command, bytearray(packet), mid, 1)
        self._tail = self._out_packet[-1] if self._out_packet else None  # type: ignore[assignment]
        return rc


def _aligned_at_its_end(size: int) -> memoryview:
    """New memory for a packet whose last values lie where the processor reads them best: messages end with vectors."""
    unused = -size % _ALIGNMENT
    return np.empty(unused + size, np.uint8).data[unused:]


def _packet_bounds(data: bytes, position: int) -> tuple[int, int] | None:
    """The indices after the fixed header of the packet at ``position`` and after the packet.

    None if the header is incomplete.
    """
    length = 0
    for index in range(1, 5):
        if position + index >= len(data):
            return None
        byte = data[position + index]
        length |= (byte & 127) << 7 * (index - 1)
        if byte < 128:
            return position + index + 1, position + index + 1 + length
    raise MalformedPacket("a packet's length of more than four bytes")
