"""What a broker answers, as a `fl_shared.mqtt.paho.probe.Probe` shows it. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FAILURE: Final = 0x80
"""Reason codes from here on say that something was not done."""


class ProbeFailed(Exception):
    """The broker refused the connection, ended it, or did not answer in time; ``str()`` says which.

    ``code``: the reason code of its CONNACK or DISCONNECT, null if it sent none.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class ConnackProperties:
    """What CONNACK announced (MQTT 5, section 3.2.2.3); null where it said nothing, which has a meaning of its own."""

    maximum_packet_size: int | None
    """Bytes. Null: no limit but MQTT's own."""
    receive_maximum: int | None
    """QoS 1 messages of ours that may be without PUBACK. Null: 65,535."""
    maximum_qos: int | None
    """Null: 2."""
    topic_alias_maximum: int | None
    """Null: 0."""
    server_keep_alive: int | None
    """Seconds, in the place of ours. Null: ours."""
    retain_available: bool
    wildcards_available: bool
    shared_available: bool


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as it came. ``expiry``: seconds that it had left. ``at``: `time.monotonic` seconds."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    mid: int
    received_at: float
    response_topic: str | None
    correlation_data: bytes | None
    expiry: int | None
