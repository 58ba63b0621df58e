"""Unsigned numbers in groups of seven bits, the lowest first (LEB128). Pure.

These are the variable byte integers of MQTT 5 (section 1.5.5; at most four bytes) and the varints of protocol
buffers.
"""

from __future__ import annotations

from collections.abc import Sequence


def encode(number: int) -> bytes:
    """``number`` as one or more bytes; all but the last have their highest bit set."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length(number: int) -> int:
    """The number of bytes in which `encode` writes ``number``."""
    return max(1, (number.bit_length() + 6) // 7)


def decode(data: Sequence[int], at: int, most: int = 4) -> tuple[int, int]:
    """The number that begins at index ``at`` of ``data``, and the index after it.

    Raises ``ValueError`` if it has more than ``most`` bytes, ``IndexError`` if ``data`` ends within it.
    """
    number = 0
    for shift in range(0, 7 * most, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError(f"a variable byte integer of more than {most} bytes")
