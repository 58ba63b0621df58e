"""The answers of a broker, as a `fl_shared.mqtt.paho.probe.Probe` reports them. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FAILURE: Final = 0x80
"""The first of the reason codes that report a failure."""


class ProbeFailed(Exception):
    """The broker refused the connection, ended it, or did not answer in time; ``str()`` says which.

    ``code``: the reason code of its CONNACK or DISCONNECT, null if it sent none.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class ConnackProperties:
    """What CONNACK announced (MQTT 5, section 3.2.2.3); None, with the given meaning, if it is absent."""

    maximum_packet_size: int | None
    """Bytes of the largest packet. None: no limit but MQTT's own."""
    receive_maximum: int | None
    """How many of our QoS 1 messages may be unacknowledged. None: 65,535."""
    maximum_qos: int | None
    """The highest QoS that the broker accepts. None: 2."""
    topic_alias_maximum: int | None
    """How many topic aliases we may use. None: 0."""
    server_keep_alive: int | None
    """The keepalive in seconds that replaces ours. None: ours."""
    retain_available: bool
    wildcards_available: bool
    shared_available: bool


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One received message. ``expiry``: seconds that it had left. ``received_at``: `time.monotonic`."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    mid: int
    received_at: float
    response_topic: str | None
    correlation_data: bytes | None
    expiry: int | None
