"""The queue of one link: bounded, in order, and limited by the broker's Receive Maximum."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fl_shared.errors import QueueFull
from fl_shared.mqtt.events import MAX_STRING, check_qos, check_topic
from fl_shared.system import varint

ACK_WINDOW: Final = 20
"""QoS 1 messages that may await their PUBACK at once, if the broker allows as many (Mosquitto does)."""
ACK_WINDOW_BYTES: Final = 4 * 2**20
"""Bytes of sent but unacknowledged packets (one packet always may be): a PINGREQ waits behind them."""


Pieces = tuple[bytes | memoryview, ...]
"""A payload in pieces, which are sent one after the other without a copy: they must not change until then."""
Payload = bytes | Pieces


@dataclass(frozen=True, slots=True)
class Publish:
    """A message to publish; ``expiry`` in seconds."""

    topic: str
    payload: Payload = field(repr=False)
    qos: int
    retain: bool
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry: int | None = None

    @property
    def pieces(self) -> Pieces:
        """The payload in pieces, perhaps only one."""
        return (self.payload,) if isinstance(self.payload, bytes) else self.payload

    def checked_size(self) -> int:
        """The bytes of the whole PUBLISH packet.

        Raises `ValueError` for what MQTT cannot express, ``TypeError`` if the payload is not a `Payload`.
        """
        topic = check_topic(self.topic)
        check_qos(self.qos)
        if not isinstance(self.payload, bytes | tuple):
            raise TypeError(f"payload: {type(self.payload).__name__}; expected bytes, or a tuple of pieces")
        properties = 0
        if self.response_topic is not None:
            properties += 3 + len(check_topic(self.response_topic))
        if self.correlation_data is not None:
            if len(self.correlation_data) > MAX_STRING:
                raise ValueError(
                    f"correlation: {len(self.correlation_data)} bytes; expected at most {MAX_STRING}"
                )
            properties += 3 + len(self.correlation_data)
        if self.expiry is not None:
            if not 0 <= self.expiry < 2**32:
                raise ValueError(f"expiry: {self.expiry}; expected whole seconds from 0 to 2^32 - 1")
            properties += 5
        rest = (
            2
            + len(topic)
            + (2 if self.qos else 0)
            + varint.length(properties)
            + properties
            + sum(map(len, self.pieces))
        )
        return 1 + varint.length(rest) + rest


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscriptions to make, as (filter, QoS); the options as in `Connection.subscribe`."""

    filters: tuple[tuple[str, int], ...]
    no_local: bool = False
    retain_as_published: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Subscriptions to end."""

    filters: tuple[str, ...]


Outgoing = Publish | Subscribe | Unsubscribe


class Outbox:
    """The packets of one link that are queued or unacknowledged.

    `put` may be called from any thread, all other methods only from the thread that sends.
    """

    def __init__(self, max_queued: int, max_bytes: int, window: int) -> None:
        self._max_queued = max_queued
        self._max_bytes = max_bytes
        self._window = min(ACK_WINDOW, window)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Outgoing, int]] = deque()
        self._sent: dict[int, tuple[int, bool]] = {}
        self._unacknowledged = 0
        self._sent_bytes = 0
        self._count = 0
        self._bytes = 0
        self._closed = False

    def put(self, item: Outgoing, size: int = 0) -> bool:
        """Queues a packet of ``size`` bytes. Returns False if the link has ended. Raises `QueueFull`."""
        with self._lock:
            if self._closed:
                return False
            if self._count >= self._max_queued or (self._count and self._bytes + size > self._max_bytes):
                raise QueueFull(
                    f"{self._count} messages ({self._bytes} bytes) are waiting for the broker; expected at most "
                    f"{self._max_queued} ({self._max_bytes} bytes)"
                )
            self._count += 1
            self._bytes += size
            self._waiting.append((item, size))
            return True

    def pop_sendable(self) -> tuple[Outgoing, int] | None:
        """Removes and returns the next packet that may be sent now, with its size; None if there is none.

        The caller then calls `mark_sent` for a published message, and `release` for anything else.
        """
        if not self._waiting:
            return None
        item, size = self._waiting[0]
        if isinstance(item, Publish):
            if item.qos and self._unacknowledged >= self._window:
                return None
            if self._sent and self._sent_bytes + size > ACK_WINDOW_BYTES:
                return None
        return self._waiting.popleft()

    def mark_sent(self, mid: int, size: int, *, awaits_ack: bool) -> None:
        """Records that message ``mid`` was handed to paho; it takes room until `mark_acknowledged`."""
        self._sent[mid] = (size, awaits_ack)
        self._sent_bytes += size
        self._unacknowledged += awaits_ack

    def mark_acknowledged(self, mid: int) -> int:
        """Frees the room of message ``mid``, which the broker, or at QoS 0 the socket, has answered.

        Returns the bytes of its packet; 0 for an unknown message, which is ignored.
        """
        size, awaits_ack = self._sent.pop(mid, (None, False))
        if size is not None:
            self._sent_bytes -= size
            self._unacknowledged -= awaits_ack
            self.release(size)
        return size or 0

    def release(self, size: int) -> None:
        """Frees the room of a packet of ``size`` bytes that was taken from the queue."""
        with self._lock:
            self._count -= 1
            self._bytes -= size

    def close(self) -> None:
        """Accepts nothing more, and discards the queue."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or unacknowledged."""
        return not self._waiting and not self._sent
