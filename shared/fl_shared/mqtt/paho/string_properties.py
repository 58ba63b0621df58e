"""Replaces paho's reader of string properties when it is imported.

paho's own reader closes the connection at U+FEFF, which MQTT 5 allows (1.5.4) and brokers pass on: one retained
message with it would lock us out forever. The code that uses a string checks its content.
"""

from __future__ import annotations

from paho.mqtt import properties
from paho.mqtt.exception import MalformedPacket


def _read_utf(buffer: bytes, max_bytes: int) -> tuple[str, int]:
    """Decodes a string property; returns the text and the number of bytes read."""
    if max_bytes < 2:
        raise MalformedPacket("a string property without a length")
    length = int.from_bytes(buffer[:2], "big")
    if length > max_bytes - 2:
        raise MalformedPacket("a string property longer than its packet")
    return bytes(buffer[2 : 2 + length]).decode("utf-8", "replace"), length + 2


if hasattr(properties, "readUTF"):
    properties.readUTF = _read_utf
