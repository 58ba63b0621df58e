"""The MQTT client of the tests: MQTT 5 by paho alone, so that it can contradict the product's own client."""

from __future__ import annotations

import queue
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.subscribeoptions import SubscribeOptions

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.security.kit import Kit
from fl_shared.system.mosquitto import LOOPBACK
from tests.support.received import ANSWER_TIMEOUT, Inbox, Received
from tests.support.wait import wait_until

FENCE = "fence/"
"""Below it a client publishes what shows it that all before has come."""
NOT_AUTHORISED = 0x87
"""The reason code of what an ACL denies. All from 0x80 on are failures."""


class ConnectionRefused(Exception):
    """The broker or TLS refuses the connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker's listener and an account. ``tls`` is null without TLS."""

    port: int
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None
    host: str = LOOPBACK

    @classmethod
    def of(cls, kit: Kit) -> Endpoint:
        host, _, port = kit.broker.partition("://")[2].rpartition(":")
        return cls(int(port), kit.ssl_context(), kit.user, kit.password, host)


def packed_user_properties(pairs: Sequence[tuple[str, str]]) -> bytes:
    """These alone as the properties of a packet (MQTT 5, 2.2.2)."""
    body = b"".join(
        b"\x26" + b"".join(struct.pack(">H", len(text)) + text for text in (name.encode(), value.encode()))
        for name, value in pairs
    )
    length: bytes = VariableByteIntegers.encode(len(body))  # type: ignore[no-untyped-call]
    return length + body


class Client(Inbox):
    """A connection that remembers all it receives, in order, until the end of the ``with`` block.

    ``filters`` are subscribed to. ``will``: topic and payload. ``reconnect``: it connects and subscribes
    again when the connection is lost. Raises `ConnectionRefused`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *filters: str,
        name: str = "",
        prefix: str = "fl",
        will: tuple[str, bytes] | None = None,
        retain_will: bool = True,
        keepalive: int = 60,
        reconnect: bool = False,
    ) -> None:
        super().__init__(name := name or f"test-{secrets.token_hex(4)}")
        self.prefix = prefix
        self.lost = ""
        """Why the connection was lost, if it was."""
        self._filters: dict[str, SubscribeOptions] = {}
        self._codes: dict[int, int] = {}
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5, reconnect_on_failure=reconnect
        )
        client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]  # it takes fractions, too
        if endpoint.tls is not None:
            client.tls_set_context(endpoint.tls)
        if endpoint.user is not None:
            client.username_pw_set(endpoint.user, endpoint.password)
        if will is not None:
            client.will_set(*will, qos=1, retain=retain_will)
        client.on_connect = lambda _c, _u, _f, code, _p: self._on_connect(code, answers)
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._on_disconnect(str(code), answers)
        client.on_publish = lambda _c, _u, mid, code, _p: self._on_answer(mid, code.value)
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._on_answer(
            mid, max(code.value for code in codes)
        )
        client.on_message = lambda _c, _u, message: self._on_message(message)
        try:
            # OSError: the handshake fails. In TLS 1.3, a client learns only later that its certificate is
            # refused.
            client.connect(endpoint.host, endpoint.port, keepalive, clean_start=True)
            client.loop_start()
            code = answers.get(timeout=ANSWER_TIMEOUT)
        except (OSError, queue.Empty) as error:
            self.close()
            raise ConnectionRefused(repr(error)) from None
        if isinstance(code, str) or code.is_failure:
            self.close()
            raise ConnectionRefused(str(code))
        if filters:
            assert self.subscribe(*filters) < 0x80

    # --- sending --------------------------------------------------------------------------------------------

    def publish(self, topic: str | t.Topic, payload: bytes | m.Message = b"x", **options: Any) -> int:
        """As `send`; waits for the PUBACK and returns its reason code."""
        return self._answer(self.send(topic, payload, **options))

    def send(
        self, topic: str | t.Topic, payload: bytes | m.Message, *, qos: int = 1, retain: bool = False,
        response_topic: str | None = None, correlation: bytes | None = None, content_type: str | None = None,
        expiry: int | None = None, user_properties: Sequence[tuple[str, str]] | None = None,
    ) -> int:  # fmt: skip
        """Queues a message and returns its packet identifier."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        for property_name, value in (
            ("ResponseTopic", response_topic), ("CorrelationData", correlation), ("ContentType", content_type),
            ("MessageExpiryInterval", expiry),
        ):  # fmt: skip
            if value is not None:
                setattr(properties, property_name, value)
        if user_properties:
            assert properties.isEmpty()  # type: ignore[no-untyped-call]
            packed = packed_user_properties(user_properties)
            # The time that paho takes for them grows with the square of their number.
            object.__setattr__(properties, "pack", lambda: packed)
        name = topic if isinstance(topic, str) else t.build(self.prefix, topic)
        content = codec.encode(payload) if isinstance(payload, m.Message) else payload
        return self._client.publish(name, content, qos, retain, properties).mid

    def subscribe(self, *filters: str) -> int:
        """Waits for the SUBACK and returns its largest reason code."""
        options = SubscribeOptions(1)
        self._filters |= dict.fromkeys(filters, options)
        _, packet = self._client.subscribe([(name, options) for name in filters])
        return self._answer(packet)

    def catch_up(self) -> None:
        """Waits until all messages have come that are on their way to this client, such as retained ones.

        What this client publishes comes back behind them. Only Mosquitto 2.0.11 lets a message overtake those in its
        queue, if an acknowledgement makes room just as it comes: these come before the second one.
        """
        fence = FENCE + self.name
        assert self.subscribe(fence) < 0x80
        for _ in range(2):
            known = len(self.received)
            self.publish(fence)
            self.wait_for(lambda one: one.topic == fence, "what it publishes itself", since=known)

    def drop_connection(self) -> None:
        """Ends the connection without a DISCONNECT, so that the broker publishes the will.

        Not for a client with ``reconnect``.
        """
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(
            socket.SHUT_RDWR
        )  # paho's thread sees it at once, and not `loop_stop` for a second
        self._client.loop_stop()
        connection.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _answer(self, packet: int | None) -> int:
        assert packet is not None, f"{self.name} is not connected"
        wait_until(
            lambda: packet in self._codes or self.lost,
            ANSWER_TIMEOUT,
            "an answer of the broker",
            changed=self._changed,
        )
        with self._changed:
            assert packet in self._codes, f"{self.name} was disconnected: {self.lost}"
            return self._codes.pop(packet)

    # --- paho's thread --------------------------------------------------------------------------------------

    def _on_connect(self, code: Any, answers: queue.SimpleQueue[Any]) -> None:
        if not code.is_failure:
            self.lost = ""
            if self._filters:  # again
                self._client.subscribe(list(self._filters.items()))
        answers.put(code)

    def _on_disconnect(self, why: str, answers: queue.SimpleQueue[Any]) -> None:
        answers.put(why)
        with self._changed:
            self.lost = why
            self._changed.notify_all()

    def _on_answer(self, packet: int, code: int) -> None:
        with self._changed:
            self._codes[packet] = code
            self._changed.notify_all()

    def _on_message(self, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self._put(Received(
            time.monotonic(), message.topic, bytes(message.payload), message.retain,
            getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None), self.prefix,
        ))  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
