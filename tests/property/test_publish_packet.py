"""`decode_publish` against paho's own, on packets of every kind and on what becomes of them when bytes change."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import fl_shared.mqtt.network  # noqa: F401 - it mends how paho reads strings, for both
from fl_shared.mqtt.paho.publish_packet import MAX_PROPERTIES, MIN_VIEW_BYTES, PublishPacket, decode_publish
from fl_shared.system import varint

Outcome = tuple[bytes, int, str | None, bytes | None, bytes] | None


def by_paho(command: int, packet: bytes) -> Outcome:
    try:
        found = _packet.decode_publish(command, packet, MQTTProtocolVersion.MQTTv5)
    except MalformedPacket:
        return None
    properties = found.properties
    return (
        found.topic,
        found.mid,
        getattr(properties, "ResponseTopic", None),
        getattr(properties, "CorrelationData", None),
        bytes(found.payload),
    )


def by_us(command: int, packet: bytes | memoryview) -> Outcome:
    try:
        found = decode_publish(command, packet)
    except MalformedPacket:
        return None
    return (found.topic, found.mid, found.response_topic, found.correlation_data, bytes(found.payload))


def packed(chance: random.Random) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in (
        ("PayloadFormatIndicator", chance.randint(0, 1)),
        ("MessageExpiryInterval", chance.getrandbits(32)),
        ("ContentType", "x/y" * chance.randint(0, 50)),
        ("ResponseTopic", chance.choice(("", "fl/ä", "a\ufeffb", "r" * 300))),
        ("CorrelationData", chance.randbytes(chance.randint(0, 40))),
        ("TopicAlias", chance.randint(1, 65_535)),
        ("UserProperty", ("k" * chance.randint(0, 9), "v")),
        ("UserProperty", ("again", "")),
        ("SubscriptionIdentifier", chance.randint(1, 268_435_455)),
    ):
        if chance.random() < 0.3:
            setattr(properties, name, value)
    made: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return made


def packets(seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """(command, what follows its length): a third as they should be, the others with a few changes."""
    chance = random.Random(seed)
    for number in range(count):
        command = 0x30 | chance.choice((0, 1, 2, 3, 4, 8, 10, 6))
        topic = chance.choice(("", "a", "fl/updates/7", "ü" * 100)).encode()
        packet = bytearray(len(topic).to_bytes(2, "big") + topic)
        if command & 6:
            packet += chance.randbytes(2)
        packet += packed(chance) if chance.random() < 0.7 else b"\0"
        packet += chance.randbytes(chance.choice((0, 0, 1, 3, 9, 200)))
        for _ in range(chance.randint(1, 3) if number % 3 else 0):
            place = chance.randrange(len(packet) + 1)
            match chance.randrange(5):
                case 0:
                    del packet[place:]
                case 1:
                    del packet[place : place + chance.randint(1, 3)]
                case 2:
                    packet[place:place] = chance.randbytes(chance.randint(1, 3))
                case 3:
                    packet[place : place + 1] = bytes([chance.choice((0, 1, 2, 9, 11, 38, 0x7F, 0x80, 0xFF))])
                case _:
                    packet[place : place + 1] = chance.randbytes(1)
        yield command, bytes(packet)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))])
def test_every_packet_is_taken_or_refused_as_by_paho(seed: int) -> None:
    taken = 0
    for command, packet in packets(seed, 5000):
        expected = by_paho(command, packet)
        assert by_us(command, packet) == expected, (command, packet.hex())
        assert by_us(command, memoryview(packet)) == expected, (command, packet.hex())
        taken += expected is not None
    assert 1700 < taken < 4500, "both must occur"


@pytest.mark.parametrize("size", [MIN_VIEW_BYTES - 1, MIN_VIEW_BYTES, 3 * MIN_VIEW_BYTES])
def test_a_large_payload_is_a_view_and_a_small_one_bytes(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    packet = b"\0\1t\0\7\0" + payload
    found = decode_publish(0x32, packet)
    assert found == PublishPacket(b"t", 7, None, None, payload)
    if size < MIN_VIEW_BYTES:
        assert type(found.payload) is bytes
    else:
        assert isinstance(found.payload, memoryview)
        assert found.payload.obj is packet, "a copy"
        assert found.payload.readonly


ANSWER = b"\x08\0\1a"
EMPTY = b"\x26\0\0\0\0"
"""A user property without a name and a value."""


def with_properties(properties: bytes) -> bytes:
    return b"\0\1t" + varint.encode(len(properties)) + properties + b"end"


@pytest.mark.parametrize("before", [MAX_PROPERTIES - 1, MAX_PROPERTIES])
def test_only_the_first_properties_are_read(before: int) -> None:
    """What follows them is not even looked at: here it is no property."""
    found = decode_publish(0x30, with_properties(before * EMPTY + ANSWER + b"\x7f" * 1000))
    assert found == PublishPacket(b"t", 0, "a" if before < MAX_PROPERTIES else None, None, b"end")


@pytest.mark.timeout(480)
def test_paho_is_given_no_more_properties_than_it_can_read() -> None:
    """It copies the rest for each of them: two hundred thousand took it more than a minute."""
    few = _packet.decode_publish(0x34, b"\0\1t\0\1" + with_properties(ANSWER)[3:], MQTTProtocolVersion.MQTTv5)
    assert getattr(few.properties, "ResponseTopic", None) == "a"
    packet = b"\0\1t\0\1" + with_properties(ANSWER + 200_000 * EMPTY)[3:]
    many = _packet.decode_publish(0x34, packet, MQTTProtocolVersion.MQTTv5)
    assert not hasattr(many.properties, "ResponseTopic")
    assert many.payload == b"end"


def test_properties_without_end_from_the_broker_itself_are_refused() -> None:
    found = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    with pytest.raises(MalformedPacket, match="1000000 bytes of properties"):
        found.unpack(varint.encode(1_000_000) + 200_000 * EMPTY)  # type: ignore[no-untyped-call]
