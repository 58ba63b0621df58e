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
ONCE = (b"\x01\1", b"\x02\0\0\0\x3c", b"\x03\0\3x/y", b"\x08\0\4fl/x", b"\x09\0\2\0\xff", b"\x23\0\1")


def received(
    rng: random.Random, topic: str, payload: bytes | memoryview, *, retain: bool
) -> mqtt.Received | None:
    """The message with properties as a client may choose them; one packet in a hundred has a wrong byte.

    Returns ``None`` if the packet is no longer valid: the connection would end.
    """
    properties = rng.choices(PROPERTIES, k=rng.choice(COUNTS))
    properties += [one for one in ONCE if rng.random() < 0.2]
    rng.shuffle(properties)
    extras = b"".join(properties)
    name = topic.encode()
    head = bytearray(len(name).to_bytes(2, "big") + name + b"\0\1" + varint.encode(len(extras)) + extras)
    if rng.random() < 0.01:
        head[rng.randrange(len(head))] = rng.randrange(256)
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
