"""MQTT packets written byte by byte, with what no client library sends."""

from __future__ import annotations

import socket
import struct
import time

from fl_shared.system.mosquitto import LOOPBACK
from tests.support.client import Endpoint
from tests.support.received import ANSWER_TIMEOUT

KEEPALIVE = 60


def raw_publish(endpoint: Endpoint, name: str, topic: bytes, payload: bytes) -> int:
    """One PUBLISH at QoS 1 with a topic that no client library would send.

    The reason code of the PUBACK, or of the DISCONNECT; 0x100 if the broker just hangs up.
    """
    with socket.create_connection((LOOPBACK, endpoint.port), ANSWER_TIMEOUT) as plain:
        stream = plain if endpoint.tls is None else endpoint.tls.wrap_socket(plain, server_hostname=LOOPBACK)
        with stream:
            stream.settimeout(ANSWER_TIMEOUT)
            head = (
                _text(b"MQTT") + bytes([5, 2]) + struct.pack(">H", KEEPALIVE) + b"\0" + _text(name.encode())
            )
            stream.sendall(_packet(0x10, head))
            kind, answer = _read_packet(stream)
            assert (kind, answer[1]) == (0x20, 0), "it is let in"
            stream.sendall(_packet(0x32, _text(topic) + struct.pack(">H", 1) + b"\0" + payload))
            try:
                kind, answer = _read_packet(stream)
            except (OSError, EOFError):
                return 0x100
            if kind == 0x40:
                return answer[2] if len(answer) > 2 else 0
            assert kind == 0xE0
            return answer[0] if answer else 0


def _text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, low = left >> 7, left & 0x7F
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


def _read_packet(stream: socket.socket) -> tuple[int, bytes]:
    kind = _read(stream, 1)[0]
    length = shift = 0
    while True:
        byte = _read(stream, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return kind & 0xF0, _read(stream, length)


def _read(stream: socket.socket, count: int) -> bytes:
    deadline = time.monotonic() + ANSWER_TIMEOUT
    found = b""
    while len(found) < count:
        assert time.monotonic() < deadline, "no answer"
        more = stream.recv(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found
