"""The settings of a connection (`ConnectionSettings`) and its events (`ConnectionEvent`). No I/O here."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress

MAX_STRING: Final = 65_535
"""Bytes of the longest string or binary field of an MQTT packet, except the payload."""
CONNECT_TIMEOUT: Final = 6.0
"""Seconds to wait for a first connection: an attempt may take 5 and then has a reason for its failure."""
MAX_MQTT_PACKET: Final = 268_435_460
"""Bytes of the largest packet that MQTT can express: the limit if the broker announces none."""
MAX_FILTERS: Final = 8
"""Filters in one SUBSCRIBE packet; hosted brokers allow no more (AWS IoT Core)."""


@dataclass(frozen=True, slots=True)
class Will:
    """The message that the broker publishes for us if the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The settings of one connection. It uses MQTT 5, clean start and session expiry 0. Times are in seconds.

    ``mqtt_client_id``: None for a random one, which stays the same over reconnects (so that the broker ends
    our half-open predecessor, and sends its will, before it answers us).
    ``tls``: the context of an encrypted connection (``mqtts``, ``wss``), None for one that is not encrypted.
    ``will``: a function is called for each connection (the will may name its session), on another thread.
    ``keepalive``: whole seconds; we notice a silent loss after at most twice that, the broker after 1.5
    times.
    ``receive_maximum``: how many QoS 1 messages to us may be unacknowledged, None for 65,535.
    ``maximum_packet_size``: bytes; the broker drops larger packets instead of sending them; None for no
    limit.
    ``max_queued``, ``max_queued_bytes``: limits of what is queued or unacknowledged; one message always fits.
    ``account``: as whom the broker knows us, for log lines.
    ``connect_timeout``: for the TCP connection (to each IP address), and again for the answer to CONNECT.
    ``retry_first``, ``retry_cap``: the n-th attempt waits a random time, at most first × 2^n and at most the
    cap.
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
    account: str = "no account"

    def __post_init__(self) -> None:
        """Checks the settings: `UserError` for values that a person may have given, else `ValueError`."""
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
    """A connection is established. The broker has no state of ours, so subscribe and publish again.

    ``maximum_packet_size``: bytes of the largest packet that the broker accepts (`MAX_MQTT_PACKET` if it
    announced none). ``receive_maximum``: how many of our QoS 1 messages may be unacknowledged. The connection
    keeps to both. ``keepalive``: seconds. ``shared_subscriptions``: false if it announced that it has none.
    """

    maximum_packet_size: int
    receive_maximum: int
    keepalive: int
    shared_subscriptions: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection ended, or an attempt failed; the next attempt is already scheduled.

    ``failures`` is 0 if an established connection ended, n if the n-th attempt since then failed.
    """

    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """The broker refused us for good: the connection makes no further attempts.

    ``code`` is the reason code of CONNACK (MQTT 5, section 3.2.2.2), None if there was no CONNACK.
    """

    reason: str
    code: int | None


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the broker has sent us."""

    topic: str
    payload: bytes | memoryview = field(repr=False)
    """``bytes`` if it is below 16 KiB, otherwise a read-only view (format B) of the received packet.

    The view keeps the packet alive. It is compared, measured, hashed and sliced like bytes, and slicing it
    copies nothing. Use ``bytes()`` for functions that take only bytes (JSON, pickle), and to keep a part
    without the rest.
    """
    retain: bool
    """True if the broker had retained it when we subscribed, False if it was published since then."""
    qos: int
    response_topic: str | None = None
    correlation_data: bytes | None = None
    packet_size: int = field(default=0, compare=False)
    """Bytes of the packet as the broker sent it, 0 if unknown."""

    @property
    def size(self) -> int:
        """The bytes that count against every limit: properties and topic cost as much as the payload does."""
        return max(self.packet_size, len(self.topic) + len(self.payload))


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's answer to one SUBSCRIBE packet.

    ``codes``: one for each filter; 0 to 2 is the QoS granted, 0x80 and above a refusal.
    """

    filters: tuple[str, ...]
    codes: tuple[int, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """The filters that the broker refused."""
        return tuple(name for name, code in zip(self.filters, self.codes, strict=False) if code >= 0x80)

    @property
    def refusals_text(self) -> str:
        """The filters that the broker refused, each with its reason code."""
        pairs = zip(self.filters, self.codes, strict=False)
        return ", ".join(f"{name} (0x{code:02x})" for name, code in pairs if code >= 0x80)


ConnectionEvent = Connected | Lost | ConnectRefused | Received | Subscribed


def check_topic(topic: str) -> bytes:
    """The UTF-8 of a topic. Raises `ValueError` if it cannot be published to."""
    encoded = topic.encode()
    if not encoded or len(encoded) > MAX_STRING or any(mark in topic for mark in "+#\0"):
        raise ValueError(
            f"topic {topic[:80]!r}: expected 1 to {MAX_STRING} bytes of UTF-8 without +, # and NUL"
        )
    return encoded


def check_filter(name: str) -> None:
    """Raises `ValueError` if ``name`` is not a valid topic filter."""
    levels = name.split("/")
    bad_levels = [level for level in levels if ("+" in level or "#" in level) and len(level) > 1]
    if not name or len(name.encode()) > MAX_STRING or "\0" in name or bad_levels or "#" in levels[:-1]:
        raise ValueError(
            f"filter {name[:80]!r}: + and # must be alone in a level, and # must be in the last one"
        )


def check_will(will: Will) -> None:
    """Raises `ValueError` if MQTT does not allow the will's topic, QoS or payload."""
    check_topic(will.topic)
    check_qos(will.qos)
    if len(will.payload) > MAX_STRING:
        raise ValueError(f"will: {len(will.payload)} bytes; expected at most {MAX_STRING}")


def check_qos(qos: int) -> None:
    """Raises `ValueError` if ``qos`` is not 0, 1 or 2."""
    if qos not in (0, 1, 2):
        raise ValueError(f"qos {qos!r}: expected 0, 1 or 2")
