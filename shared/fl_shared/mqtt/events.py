"""What a connection to the broker is told (`ConnectionSettings`) and what it tells (`ConnectionEvent`). No I/O here."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress

MAX_STRING: Final = 65_535
"""Bytes of any string or binary member of an MQTT packet but the payload."""
CONNECT_TIMEOUT: Final = 6.0
"""Seconds to wait for a first connection: an attempt has 5 (`ConnectionSettings`), and ends with a reason."""
MAX_MQTT_PACKET: Final = 268_435_460
"""Bytes of the largest packet that MQTT can express: the limit where the broker announces none."""
MAX_FILTERS: Final = 8
"""Filters in one SUBSCRIBE packet; hosted brokers allow no more (AWS IoT Core)."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when the connection ends without a goodbye."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Times are seconds. MQTT 5, clean start, session expiry 0: the broker keeps nothing of us.

    ``mqtt_client_id``: null for a random one, which stays the same over reconnects (so that the broker ends
    our half-open predecessor, and sends his will, before it answers us).
    ``tls``: how an encrypted connection (``mqtts``, ``wss``) is made, null for one that is not.
    ``will``: a function is asked anew for each connection (its session may be in it), on another thread.
    ``keepalive``: whole seconds; a silent loss shows after at most twice that (to the broker: 1.5 times).
    ``receive_maximum``: how many QoS 1 messages the broker may have on the way to us, null for 65,535.
    ``maximum_packet_size``: bytes; the broker drops what is larger instead of sending it; null for no limit.
    ``max_queued``, ``max_queued_bytes``: what may wait to be sent or acknowledged; one message always may.
    ``connect_timeout``: for each of the TCP connection (per address) and the broker's answer to CONNECT.
    ``retry_first``, ``retry_cap``: the n-th attempt waits a random time of at most first × 2^n and the cap.
    """

    address: BrokerAddress
    password: str | None = field(default=None, repr=False)
    mqtt_client_id: str | None = None
    keepalive: int = 30
    will: Will | Callable[[], Will] | None = None
    receive_maximum: int | None = None
    maximum_packet_size: int | None = None
    max_queued: int = 1000
    max_queued_bytes: int = 64 * 2**20
    connect_timeout: float = 5.0
    retry_first: float = 0.1
    retry_cap: float = 5.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """What a person may have given raises `UserError`, what only our programs give `ValueError`."""
        if self.password is not None and self.address.user is None:
            raise UserError(
                f"broker {self.address}: a password needs a user; write {self.address.scheme}://USER@host"
            )
        if (self.tls is not None) != self.address.is_encrypted:
            raise ValueError(f"{self.address}: expected tls for mqtts and wss, and for nothing else")
        for name, text in (("password", self.password), ("MQTT client id", self.mqtt_client_id)):
            if text is not None and len(text.encode(errors="replace")) > MAX_STRING:
                raise UserError(f"{name}: expected at most {MAX_STRING} bytes")
        if not 1 <= self.keepalive <= 65_535:
            raise UserError(f"keepalive: {self.keepalive}; expected 1 to 65535 s")
        if self.receive_maximum is not None and not 1 <= self.receive_maximum <= 65_535:
            raise ValueError(f"receive_maximum: {self.receive_maximum}; expected 1 to 65535")
        if self.maximum_packet_size is not None and not 1 <= self.maximum_packet_size <= 268_435_455:
            raise ValueError(f"maximum_packet_size: {self.maximum_packet_size}; expected 1 to 268435455")
        if self.max_queued < 1 or self.connect_timeout <= 0 or not 0 < self.retry_first <= self.retry_cap:
            raise ValueError("expected max_queued ≥ 1, connect_timeout > 0 and 0 < retry_first ≤ retry_cap")
        if isinstance(self.will, Will):
            check_will(self.will)


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker knows nothing of us: subscribe, and publish again whatever must be there.

    What it announced: bytes of the largest packet it accepts (`MAX_MQTT_PACKET` if it said nothing), how many
    of our QoS 1 messages may wait for its acknowledgement (the connection keeps to both), the keepalive.
    """

    maximum_packet_size: int
    receive_maximum: int
    keepalive: int


@dataclass(frozen=True, slots=True)
class Lost:
    """``failures`` is 0 when an established connection ended, n when the n-th attempt since then failed.

    The next attempt is already on its way.
    """

    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """The broker will not have us, and will not change its mind: nothing more is tried on this connection.

    ``code`` is the reason code of CONNACK (MQTT 5, section 3.2.2.2), null if it did not come to that.
    """

    reason: str
    code: int | None


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes | memoryview = field(repr=False)
    """Bytes below 16 KiB; from there on a read-only view (format B) of what was received, which it keeps alive.

    A view is compared, measured, hashed and sliced as bytes are; what is slicing it costs no copy. ``bytes()`` for
    what takes only bytes (JSON, pickle) or is to be kept when the rest may go.
    """
    retain: bool
    """It lay at the broker when we subscribed; False for what was published since."""
    qos: int
    response_topic: str | None = None
    correlation_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's answer to one SUBSCRIBE packet.

    ``codes``: one a filter; 0 to 2 is the QoS granted, 0x80 and above a refusal.
    """

    filters: tuple[str, ...]
    codes: tuple[int, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        return tuple(name for name, code in zip(self.filters, self.codes, strict=False) if code >= 0x80)


ConnectionEvent = Connected | Lost | ConnectRefused | Received | Subscribed


def check_topic(topic: str) -> bytes:
    """The topic's UTF-8, if one may publish to it; else `ValueError`."""
    encoded = topic.encode()
    if not encoded or len(encoded) > MAX_STRING or any(mark in topic for mark in "+#\0"):
        raise ValueError(
            f"topic {topic[:80]!r}: expected 1 to {MAX_STRING} bytes of UTF-8 without +, # and NUL"
        )
    return encoded


def check_filter(name: str) -> None:
    """Raises `ValueError` if one may not subscribe to it."""
    levels = name.split("/")
    wild = [level for level in levels if ("+" in level or "#" in level) and len(level) > 1]
    if not name or len(name.encode()) > MAX_STRING or "\0" in name or wild or "#" in levels[:-1]:
        raise ValueError(
            f"filter {name[:80]!r}: + and # must be alone in a level, and # must be in the last one"
        )


def check_will(will: Will) -> None:
    check_topic(will.topic)
    check_qos(will.qos)
    if len(will.payload) > MAX_STRING:
        raise ValueError(f"will: {len(will.payload)} bytes; expected at most {MAX_STRING}")


def check_qos(qos: int) -> None:
    if qos not in (0, 1, 2):
        raise ValueError(f"qos {qos!r}: expected 0, 1 or 2")
