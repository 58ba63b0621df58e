"""Replaces parts of paho's reader of MQTT 5 properties when it is imported.

paho's reader of all properties copies the rest of the packet for each of them: 1 MB of user properties, which any
client may send and a broker passes on, keeps it busy for more than a minute. `publish_packet` does not use it, but
the rare packets that are left to paho do.

paho's reader of strings closes the connection at U+FEFF, which MQTT 5 allows (1.5.4) and brokers pass on: one
retained message with it would lock us out forever. The code that uses a string checks its content.

paho ends the connection if a broker takes packets of 256 MiB or more, as Mosquitto does with its highest
``max_packet_size``, and NanoMQ did by default (its pull request 2010). MQTT allows any number there (3.2.2.3.6).
"""

from __future__ import annotations

from typing import Any, Final

from paho.mqtt import properties
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fl_shared.system import varint

MAX_PROPERTY_BYTES: Final = 4096
"""Bytes of properties that paho is given. More in a PUBLISH are skipped; more in another packet, which the broker
itself writes, end the connection."""
PACKED_SIZE: Final = "fl_packed_size"
"""The attribute of `Properties` that says how many bytes they had, read or skipped."""

_MAX_PACKET_SIZE: Final = 2**28 - 1
"""Bytes: the largest ``MaximumPacketSize`` that paho takes."""

_unpack_all = Properties.unpack
_set = Properties.__setattr__


def _unpack(self: Properties, buffer: bytes) -> tuple[Properties, int]:
    """Reads the properties at the beginning of ``buffer``; returns them, and how many bytes they take."""
    length, start = varint.decode(buffer, 0)
    vars(self)[PACKED_SIZE] = length
    if length <= MAX_PROPERTY_BYTES:
        return _unpack_all(self, buffer[: start + length])  # type: ignore[no-any-return,no-untyped-call]
    if self.packetType != PacketTypes.PUBLISH or start + length > len(buffer):
        raise MalformedPacket(f"{length} bytes of properties; expected at most {MAX_PROPERTY_BYTES}")
    self.clear()  # type: ignore[no-untyped-call]
    return self, start + length


def _read_utf(buffer: bytes, max_bytes: int) -> tuple[str, int]:
    """Decodes a string property; returns the text and the number of bytes read."""
    if max_bytes < 2:
        raise MalformedPacket("a string property without a length")
    length = int.from_bytes(buffer[:2], "big")
    if length > max_bytes - 2:
        raise MalformedPacket("a string property longer than its packet")
    return bytes(buffer[2 : 2 + length]).decode("utf-8", "replace"), length + 2


def _set_as_paho_takes_it(self: Properties, name: str, value: Any) -> None:
    is_limit = name.replace(" ", "") == "MaximumPacketSize"
    _set(self, name, min(value, _MAX_PACKET_SIZE) if is_limit else value)  # type: ignore[no-untyped-call]


Properties.__setattr__ = _set_as_paho_takes_it  # type: ignore[method-assign]
Properties.unpack = _unpack  # type: ignore[method-assign]
if hasattr(properties, "readUTF"):
    properties.readUTF = _read_utf
