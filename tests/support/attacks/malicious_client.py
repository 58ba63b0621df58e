"""MQTT clients that say what our own programs never would: plain paho, and packets made by hand."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from fl_shared.kit import Kit
from fl_shared.mosquitto import LOOPBACK
from tests.support.provisioned_broker import cut

WAIT = 15.0
KEEPALIVE = 60


class ConnectionRefused(Exception):
    """The broker or TLS does not let it in."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one comes to the broker: ``tls`` null without TLS."""

    port: int
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None

    @classmethod
    def of(cls, kit: Kit) -> Endpoint:
        port = int(kit.broker.rpartition(":")[2])
        return cls(port, kit.ssl_context(), kit.user, kit.password)


@dataclass(frozen=True, slots=True)
class Heard:
    topic: str
    payload: bytes
    retained: bool


class MaliciousClient:
    """A plain MQTT 5 client that remembers all it hears, in order. Raises `ConnectionRefused`."""

    def __init__(self, endpoint: Endpoint, name: str, *, will: tuple[str, bytes] | None = None) -> None:
        self.name = name
        self.heard: list[Heard] = []
        self.lost = ""
        self._codes: dict[int, int] = {}
        self._changed = threading.Condition()
        answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if endpoint.tls is not None:
            client.tls_set_context(endpoint.tls)
        if endpoint.user is not None:
            client.username_pw_set(endpoint.user, endpoint.password)
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect = lambda _c, _u, _f, code, _p: answered.put(code)
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._end(str(code), answered)
        client.on_publish = lambda _c, _u, mid, code, _p: self._take(mid, code.value)
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._take(mid, codes[0].value)
        client.on_message = lambda _c, _u, message: self._hear(message)
        try:
            # OSError: the handshake fails. TLS 1.3 tells a client of its certificate's refusal only afterwards.
            client.connect(LOOPBACK, endpoint.port, KEEPALIVE)
            client.loop_start()
            code = answered.get(timeout=WAIT)
        except (OSError, queue.Empty) as error:
            self.close()
            raise ConnectionRefused(repr(error)) from None
        if isinstance(code, str) or code.is_failure:
            self.close()
            raise ConnectionRefused(str(code))

    def _end(self, why: str, answered: queue.SimpleQueue[Any]) -> None:
        answered.put(why)
        with self._changed:
            self.lost = why
            self._changed.notify_all()

    def _take(self, mid: int, code: int) -> None:
        with self._changed:
            self._codes[mid] = code
            self._changed.notify_all()

    def _hear(self, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.heard.append(Heard(message.topic, bytes(message.payload), message.retain))
            self._changed.notify_all()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, response_topic: str | None = None
    ) -> int:
        """The reason code of the PUBACK."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        return self._answer(self._client.publish(topic, payload, 1, retain, properties).mid)

    def subscribe(self, name: str) -> int:
        """The reason code of the SUBACK. What is retained keeps its mark, whenever it comes."""
        options = SubscribeOptions(1, retainAsPublished=True)
        return self._answer(self._client.subscribe(name, options=options)[1])

    def _answer(self, mid: int | None) -> int:
        assert mid is not None, f"{self.name} is not connected"
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._codes or self.lost, WAIT), "no answer"
            assert mid in self._codes, f"{self.name} was thrown out: {self.lost}"
            return self._codes.pop(mid)

    def until(self, wanted: Callable[[Heard], bool], what: str, *, since: int = 0) -> Heard:
        """The first that was heard, from number ``since`` on, of which that is true."""
        found: list[Heard] = []

        def there() -> bool:
            found[:] = [one for one in self.heard[since:] if wanted(one)][:1]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(there, WAIT), f"{self.name} has not heard {what}"
        return found[0]

    def die(self) -> None:
        """Without a goodbye, so that the broker publishes its will."""
        cut(self._client)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def malicious_client(
    endpoint: Endpoint, name: str, *, will: tuple[str, bytes] | None = None
) -> Iterator[MaliciousClient]:
    """A `MaliciousClient` while the block runs. Raises `ConnectionRefused`."""
    one = MaliciousClient(endpoint, name, will=will)
    try:
        yield one
    finally:
        one.close()


# --- by hand ----------------------------------------------------------------------------------------------


def raw_publish(endpoint: Endpoint, name: str, topic: bytes, payload: bytes) -> int:
    """One PUBLISH at QoS 1 with a topic that no client library would send.

    The reason code of the PUBACK, or of the DISCONNECT; 0x100 if the broker just hangs up.
    """
    with socket.create_connection((LOOPBACK, endpoint.port), WAIT) as plain:
        stream = plain if endpoint.tls is None else endpoint.tls.wrap_socket(plain, server_hostname=LOOPBACK)
        with stream:
            stream.settimeout(WAIT)
            head = (
                _text(b"MQTT") + bytes([5, 2]) + struct.pack(">H", KEEPALIVE) + b"\0" + _text(name.encode())
            )
            stream.sendall(_packet(0x10, head))
            kind, answer = _next(stream)
            assert (kind, answer[1]) == (0x20, 0), "it is let in"
            stream.sendall(_packet(0x32, _text(topic) + struct.pack(">H", 1) + b"\0" + payload))
            try:
                kind, answer = _next(stream)
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


def _next(stream: socket.socket) -> tuple[int, bytes]:
    kind = _exactly(stream, 1)[0]
    length = shift = 0
    while True:
        byte = _exactly(stream, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return kind & 0xF0, _exactly(stream, length)


def _exactly(stream: socket.socket, count: int) -> bytes:
    deadline = time.monotonic() + WAIT
    found = b""
    while len(found) < count:
        assert time.monotonic() < deadline, "no answer"
        more = stream.recv(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found
