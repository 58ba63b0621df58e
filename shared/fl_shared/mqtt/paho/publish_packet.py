"""Decodes a PUBLISH packet of MQTT 5 without a copy of a large payload."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from paho.mqtt.exception import MalformedPacket

from fl_shared.system import varint

MIN_VIEW_BYTES: Final = 16 * 2**10
"""Bytes of a payload from which a copy costs more than a view."""
MAX_PROPERTIES: Final = 32
"""Properties of a packet that are read. MQTT 5 has eight, of which two may be repeated."""

_RESPONSE_TOPIC: Final = 8
_CORRELATION: Final = 9
_NUMBERS: Final = {1: (1, 0, 1), 2: (4, 0, 2**32 - 1), 35: (2, 1, 65_535)}
"""Payload format, expiry, topic alias (MQTT 5, 3.3.2.3): bytes, smallest and largest value."""
_STRINGS: Final = {3: 1, _RESPONSE_TOPIC: 1, 38: 2}
"""Content type, response topic, user property: the number of strings."""
_SUBSCRIPTION: Final = 11
_REPEATABLE: Final = frozenset({_SUBSCRIPTION, 38})


class PublishPacket(NamedTuple):
    """The fields of a PUBLISH packet, with only those properties that we read.

    ``payload``: ``bytes`` if it is below `MIN_VIEW_BYTES`, otherwise a view of the packet.
    """

    topic: bytes
    mid: int
    response_topic: str | None
    correlation_data: bytes | None
    payload: bytes | memoryview


def decode_publish(command: int, packet: bytes | memoryview) -> PublishPacket:
    """Decodes a packet; ``command`` is its first byte, ``packet`` everything after its length.

    Accepts what paho's ``_packet.decode_publish`` accepts, and raises `MalformedPacket` where that does, except
    for what is wrong behind the first `MAX_PROPERTIES` properties.
    """
    try:
        position = 2 + int.from_bytes(packet[:2], "big")
        topic = bytes(packet[2:position])
        mid = 0
        if command & 0x06:
            mid = packet[position] << 8 | packet[position + 1]
            position += 2
        length, position = varint.decode(packet, position)
        properties = _properties(memoryview(packet)[position : position + length], length) if length else {}
    except IndexError:
        raise MalformedPacket("a PUBLISH packet that ends too early") from None
    except ValueError as error:
        raise MalformedPacket(str(error)) from None
    start = position + length
    large = len(packet) - start >= MIN_VIEW_BYTES
    payload = memoryview(packet)[start:] if large else bytes(packet[start:])
    return PublishPacket(topic, mid, properties.get(_RESPONSE_TOPIC), properties.get(_CORRELATION), payload)


def _properties(packet: memoryview, end: int) -> dict[int, Any]:
    """Checks the first `MAX_PROPERTIES` properties, and returns the value of each one that we read.

    Those behind them are skipped unread: any client may send megabytes of user properties, and a broker passes
    them on.
    """
    properties: dict[int, Any] = {}
    position = 0
    for _ in range(MAX_PROPERTIES):
        if position >= end:
            break
        name, position = varint.decode(packet, position)
        value: Any = None
        if count := _STRINGS.get(name):
            for _ in range(count):
                value_start = position + 2
                position = _end_of_string(packet, position, end)
            if name == _RESPONSE_TOPIC:
                value = bytes(packet[value_start:position]).decode("utf-8", "replace")
        elif name == _CORRELATION:
            value_start = position + 2
            if value_start > len(packet):
                raise MalformedPacket("a binary property without a length")
            position = _end_of_string(packet, position, end)
            value = bytes(packet[value_start:position])
        elif name in _NUMBERS:
            size, min_size, maximum = _NUMBERS[name]
            if position + size > len(packet):
                raise MalformedPacket(f"property {name} reaches beyond its packet")
            if not min_size <= int.from_bytes(packet[position : position + size], "big") <= maximum:
                raise MalformedPacket(f"property {name} is not from {min_size} to {maximum}")
            position += size
        elif name == _SUBSCRIPTION:
            number, position = varint.decode(packet, position)
            if number == 0:
                raise MalformedPacket("a subscription identifier of 0")
        else:
            raise MalformedPacket(f"property {name} in a PUBLISH packet")
        if name in properties and name not in _REPEATABLE:
            raise MalformedPacket(f"property {name} occurs twice")
        properties[name] = value
    return properties


def _end_of_string(packet: memoryview, position: int, end: int) -> int:
    if end - position < 2:
        raise MalformedPacket("a property without a length")
    stop = position + 2 + int.from_bytes(packet[position : position + 2], "big")
    if stop > end:
        raise MalformedPacket("a property longer than all of them")
    return stop
