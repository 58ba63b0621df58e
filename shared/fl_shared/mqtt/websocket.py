"""MQTT inside a WebSocket (RFC 6455, and MQTT 5 section 6), with the interface of a socket.

paho's own WebSocket masks byte by byte, loses the rest of a packet that the socket does not accept at once,
and waits forever for a slow handshake. This one keeps to a deadline, and behaves like a non-blocking socket:
after `BlockingIOError` from ``send``, the caller must send the same bytes again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import replace
from hashlib import sha1
from typing import Final

import numpy as np

from fl_shared.errors import ServerRequiresTls, WebSocketRefused
from fl_shared.mqtt.address import BrokerAddress

MAX_RESPONSE: Final = 16 * 2**10
"""Bytes of the longest answer to our request for a WebSocket."""
MAX_FRAME_PAYLOAD: Final = 256 * 2**10
"""Bytes of payload that are masked, and thus copied, at a time."""
TLS_ALERT: Final = b"\x15"
"""First byte of a TLS server's answer to anything but TLS; neither HTTP nor MQTT begins with it."""
BUFFER_SIZE: Final = 64 * 2**10
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_CONTROL: Final = 0x8


class WebSocket:
    """A WebSocket over the connected ``sock``, whose TLS handshake is done; it owns ``sock``.

    The handshake takes at most ``timeout`` seconds. Raises `WebSocketRefused`, `ServerRequiresTls`,
    ``TimeoutError``, and the errors of the socket.
    """

    def __init__(self, sock: socket.socket, address: BrokerAddress, timeout: float) -> None:
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self._scratch = memoryview(bytearray(BUFFER_SIZE))
        self._start = self._end = 0
        self._payload_left = 0
        """Bytes of the current frame's payload that have not been read."""
        self._needs_more = True
        """Whether the buffer holds less than the next step needs."""
        self._frame: memoryview | None = None
        self._frame_payload = 0
        self._pong: bytes | None = None
        self._handshake(address, time.monotonic() + timeout)

    # --- handshake ----------------------------------------------------------------------------------------

    def _handshake(self, address: BrokerAddress, deadline: float) -> None:
        key = b64encode(os.urandom(16))
        scheme = "https" if address.is_encrypted else "http"
        server = replace(address, host=address.server_name).host_and_port
        request = (
            f"GET {address.path} HTTP/1.1\r\n"
            f"Host: {server}\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            f"Origin: {scheme}://{server}\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        self._sock.sendall(request.encode())
        header = self._read_response(deadline)
        lines = header.decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        status_line = lines[0].split(" ", 2)
        if not status_line[0].startswith("HTTP/1.") or len(status_line) < 2 or not status_line[1].isdigit():
            raise WebSocketRefused("it does not speak HTTP")
        if status_line[1] != "101":
            status_text = " ".join(status_line[1:])[:80]
            raise WebSocketRefused(
                f"it answered {status_text!r} for the path {address.path}", int(status_line[1])
            )
        expected_accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        if (
            fields.get("sec-websocket-accept") != expected_accept
            or fields.get("upgrade", "").lower() != "websocket"
            or "upgrade" not in fields.get("connection", "").lower()
        ):
            raise WebSocketRefused("it did not answer as a WebSocket server", 101)
        if fields.get("sec-websocket-protocol", "mqtt") != "mqtt":
            raise WebSocketRefused("the protocol inside its WebSocket is not MQTT", 101)

    def _read_response(self, deadline: float) -> bytes:
        """The head of the HTTP response; the bytes after it are in the buffer."""
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > MAX_RESPONSE:
                raise WebSocketRefused(f"its answer is longer than {MAX_RESPONSE} bytes")
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                raise TimeoutError
            self._sock.settimeout(seconds_left)
            data = self._sock.recv(4096)
            if not data:
                raise WebSocketRefused("it closed the connection")
            received += data
            if received[:1] == TLS_ALERT and not self._is_tls:
                raise ServerRequiresTls
            if not b"HTTP/".startswith(received[:5]):
                raise WebSocketRefused("it does not speak HTTP")
        rest = received[end + 4 :]
        self._buffer[: len(rest)] = rest
        self._end = len(rest)
        self._needs_more = not rest
        return received[:end]

    # --- receiving ----------------------------------------------------------------------------------------

    def recv(self, max_bytes: int) -> bytes:
        """The payload that has arrived, at most ``max_bytes`` bytes, of one or more frames; empty at the end.

        Raises ``BlockingIOError`` if nothing has arrived, and ``ConnectionError``.
        """
        view = self._scratch[:max_bytes]
        received_bytes = self.recv_into(view)
        while received_bytes and received_bytes < len(view) and self._start < self._end:
            try:
                data = self.recv_into(view[received_bytes:])
            except BlockingIOError:
                break
            if not data:
                break
            received_bytes += data
        return bytes(view[:received_bytes])

    def recv_into(self, view: memoryview) -> int:
        """Reads payload of one frame into ``view``; returns the number of bytes, 0 at the end.

        Raises ``BlockingIOError`` if nothing has arrived, and ``ConnectionError``.
        """
        while not self._payload_left:
            if not self._next_frame():
                return 0
        if self._start < self._end:
            count = min(len(view), self._payload_left, self._end - self._start)
            view[:count] = self._buffer[self._start : self._start + count]
            self._start += count
        else:
            count = self._receive(view[: self._payload_left])
        self._payload_left -= count
        return count

    def pending(self) -> int:
        """Bytes that can be read although the socket is not readable."""
        buffered = 0 if self._needs_more else self._end - self._start
        return buffered + (self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0)

    def _receive(self, view: memoryview) -> int:
        try:
            return self._sock.recv_into(view)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._needs_more = True
            if self._payload_left and self._frame is None:
                # In the middle of a frame, Mosquitto 2.0 with the libwebsockets of distributions sends 4 KB
                # whenever it receives something, and otherwise ten times a second (mosquitto#2252): 40 KB/s,
                # or with this ping 4 MB/s and more on loopback. Other brokers get a few extra bytes now and
                # then.
                self._send_control(_PING, b"")
            raise BlockingIOError from None

    def _fill_buffer(self, count: int) -> bool:
        """Reads until the buffer has ``count`` bytes from ``_start`` on; False at the end of the stream."""
        while self._end - self._start < count:
            if self._start:
                unread = bytes(self._buffer[self._start : self._end])
                self._buffer[: len(unread)] = unread
                self._start, self._end = 0, len(unread)
            received_bytes = self._receive(self._buffer[self._end :])
            if not received_bytes:
                return False
            self._needs_more = False
            self._end += received_bytes
        return True

    def _next_frame(self) -> bool:
        """Reads the head of the next data frame, and handles control frames before it; False at the end."""
        if not self._fill_buffer(2):
            return False
        first_byte, second = self._buffer[self._start], self._buffer[self._start + 1]
        opcode, size = first_byte & 0x0F, second & 0x7F
        length_bytes = {126: 2, 127: 8}.get(size, 0)
        is_control = bool(opcode & _CONTROL)
        if first_byte & 0x70 or second & 0x80 or (is_control and (length_bytes or not first_byte & 0x80)):
            raise ConnectionError("the broker violates the WebSocket protocol")
        if not self._fill_buffer(2 + length_bytes + (size if is_control else 0)):
            return False
        position = self._start + 2
        if is_control:
            body = bytes(self._buffer[position : position + size])
            self._start = position + size
            return self._handle_control(opcode, body)
        if opcode not in (_BINARY, _CONTINUATION):
            raise ConnectionError("the broker sends WebSocket text frames; expected binary ones")
        self._start = position + length_bytes
        self._payload_left = (
            int.from_bytes(self._buffer[position : position + length_bytes], "big") if length_bytes else size
        )
        return True

    def _handle_control(self, opcode: int, body: bytes) -> bool:
        if opcode == _PING:
            # Only the newest ping needs an answer (RFC 6455, 5.5.3).
            self._pong = body
            if self._frame is None:
                self._send_control(_PONG, self._pong)
                self._pong = None
        return opcode != _CLOSE

    # --- sending ------------------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Sends some of ``data`` and returns how many bytes.

        After ``BlockingIOError``, the next call must pass the same bytes again.
        """
        while True:
            if self._frame is None and self._pong is not None:
                self._frame, self._frame_payload, self._pong = (
                    _build_frame(_PONG, memoryview(self._pong)),
                    0,
                    None,
                )
            if self._frame is None:
                payload = memoryview(data)[:MAX_FRAME_PAYLOAD]
                self._frame, self._frame_payload = _build_frame(_BINARY, payload), len(payload)
            payload_sent = self._frame_payload
            self._flush()
            if payload_sent:
                return payload_sent

    def _send_control(self, opcode: int, body: bytes) -> None:
        """Sends a control frame; what the socket does not accept is sent before anything else."""
        self._frame, self._frame_payload = _build_frame(opcode, memoryview(body)), 0
        with contextlib.suppress(BlockingIOError):
            self._flush()

    def _flush(self) -> None:
        while self._frame is not None:
            try:
                sent = self._sock.send(self._frame)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError from None
            self._frame = self._frame[sent:] if sent < len(self._frame) else None

    # --- as a socket --------------------------------------------------------------------------------------

    def setblocking(self, flag: bool) -> None:
        """Sets whether the socket blocks, as in `socket.socket`."""
        self._sock.setblocking(flag)

    def fileno(self) -> int:
        """The file descriptor of the socket."""
        return self._sock.fileno()

    def close(self) -> None:
        """Closes the socket, without a WebSocket close frame."""
        self._sock.close()


def _build_frame(opcode: int, payload: memoryview) -> memoryview:
    """A whole frame, masked as a client's must be (RFC 6455, 5.3)."""
    size = len(payload)
    key = os.urandom(4)
    if size < 126:
        header = bytes((0x80 | opcode, 0x80 | size))
    elif size < 2**16:
        header = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    header += key
    frame = np.empty(len(header) + size, np.uint8)
    frame[: len(header)] = np.frombuffer(header, np.uint8)
    body, source = frame[len(header) :], np.frombuffer(payload, np.uint8)
    aligned_size = size - size % 4
    np.bitwise_xor(
        source[:aligned_size].view(np.uint32),
        np.frombuffer(key, np.uint32),
        out=body[:aligned_size].view(np.uint32),
    )
    for index in range(aligned_size, size):
        body[index] = source[index] ^ key[index % 4]
    return frame.data
