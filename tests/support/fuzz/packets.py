"""Messages as the PUBLISH packets that bring them, with any number of properties."""

from __future__ import annotations

import random

from paho.mqtt.exception import MalformedPacket

from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.paho.publish_packet import decode_publish
from fl_shared.system import varint

PROPERTIES = (b"\x26\0\0\0\0", b"\x26\0\1k\0\3abc", b"\x0b\x01", b"\x26\0\2\xef\xbb\0\0", b"\x0b\xff\x7f")
"""User properties and subscription identifiers, which may be repeated."""
COUNTS = (*(0, 0, 1, 3) * 12, 40, 400)
"""How many of these a packet has; as many as the last ones take longer than all else that is done with a message."""
ONCE = {1: b"\1", 2: b"\0\0\0\x3c", 3: b"\0\3x/y", 8: b"\0\4fl/x", 9: b"\0\2\0\xff", 35: b"\0\1"}
"""Values of the properties that may not be repeated."""
WRONG = (
    b"\x01\2", b"\x23\0\0", b"\x0b\0", b"\x0b\xff\xff\xff\xff\x01", b"\x01\1\x01\1", b"\x7f", b"\x02\0", b"\x09",
    b"\x03", b"\x26\xff\xff",
)  # fmt: skip
"""Properties that no packet may have, or that end too early."""


def received(
    rng: random.Random,
    topic: str,
    payload: bytes | memoryview,
    *,
    retain: bool,
    response_topic: str | None = None,
    correlation: bytes | None = None,
) -> mqtt.Received | None:
    """The message with properties as a client may choose them.

    One packet in a hundred has a wrong byte, often in the length of its topic, and as many have a wrong property at
    the end (which is not read behind many others). ``response_topic`` and ``correlation``: of a request; null for
    any or none. Returns ``None`` if the packet is no longer valid: the connection would end, or the message be
    dropped.
    """
    once = {number: value for number, value in ONCE.items() if rng.random() < 0.2}
    if response_topic is not None:
        once[8] = _field(response_topic.encode())
    if correlation is not None:
        once[9] = _field(correlation)
    properties = rng.choices(PROPERTIES, k=rng.choice(COUNTS))
    properties += [bytes([number]) + value for number, value in once.items()]
    rng.shuffle(properties)
    if rng.random() < 0.01:
        properties.append(rng.choice(WRONG))
    extras = b"".join(properties)
    head = bytearray(_field(topic.encode()) + b"\0\1" + varint.encode(len(extras)) + extras)
    if rng.random() < 0.01:
        head[rng.choice((0, 1, rng.randrange(len(head))))] = rng.randrange(256)
    packet = bytes(head) + bytes(payload)
    try:
        found = decode_publish(0x32, packet)
        return mqtt.Received(
            found.topic.decode(),
            found.payload,
            retain,
            1,
            found.response_topic,
            found.correlation_data,
            len(packet),
        )
    except (MalformedPacket, UnicodeDecodeError):
        return None


def _field(value: bytes) -> bytes:
    """A string or binary data with its length before it, cut to the longest that there may be."""
    return min(len(value), 65_535).to_bytes(2, "big") + value[:65_535]
