"""msgpack, as far as the protocol needs it, and BLAKE3 (github.com/BLAKE3-team/BLAKE3-specs). For MicroPython."""

import struct
from binascii import hexlify


def pack(value):
    """A value in msgpack: null, booleans, numbers, texts, bytes, lists, maps."""
    if value is None or isinstance(value, bool):
        return b"\xc0" if value is None else b"\xc3" if value else b"\xc2"
    if isinstance(value, (int, float)):
        return struct.pack(">Bq", 0xD3, value) if isinstance(value, int) else struct.pack(">Bd", 0xCB, value)
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        return struct.pack(">BI", 0xDB if isinstance(value, str) else 0xC6, len(data)) + data
    if isinstance(value, dict):
        items = b"".join(pack(key) + pack(value[key]) for key in value)
        return struct.pack(">BH", 0xDE, len(value)) + items
    return struct.pack(">BH", 0xDC, len(value)) + b"".join(pack(item) for item in value)


WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2, 0xDB: 4}
WIDTHS.update({0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4})


def unpack(data, at=0):
    """The value in msgpack at a place of ``data``, and the place behind it. Its numbers are integers from 0 on."""
    kind, at = data[at], at + 1
    if kind in (0xC0, 0xC2, 0xC3):
        return (None if kind == 0xC0 else kind == 0xC3), at
    if kind < 0xC0:
        number = kind & (0x7F if kind < 0x80 else 0x0F if kind < 0xA0 else 0x1F)
    else:
        wide = WIDTHS[kind]
        number, at = int.from_bytes(data[at : at + wide], "big"), at + wide
    if kind < 0x80 or 0xCC <= kind <= 0xCF:
        return number, at
    if 0xA0 <= kind <= 0xC6 or 0xD9 <= kind <= 0xDB:
        piece = data[at : at + number]
        return (piece if 0xC4 <= kind <= 0xC6 else piece.decode()), at + number
    is_map, items = kind < 0x90 or kind >= 0xDE, []
    for _ in range(number * 2 if is_map else number):
        item, at = unpack(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if is_map else items), at


IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
MIXED += ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
START, END, PARENT, ROOT = 1, 2, 4, 8


def _compress(chain, block, counter, size, flags):
    words = struct.unpack("<16I", block)
    v = list(chain) + list(IV[:4]) + [counter, 0, size, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            for word, right, left in ((words[2 * i], 16, 12), (words[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                x = v[d] ^ v[a]
                v[d] = (x >> right | x << (32 - right)) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                x = v[b] ^ v[c]
                v[b] = (x >> left | x << (32 - left)) & 0xFFFFFFFF
        words = [words[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def _tree(data, counter, root):
    if len(data) > 1024:
        left = 1024
        while left * 2 < len(data):
            left *= 2
        pair = _tree(data[:left], counter, 0) + _tree(data[left:], counter + left // 1024, 0)
        return _compress(IV, struct.pack("<16I", *pair), 0, 64, PARENT | root)
    chain, flags = IV, START
    for start in range(0, max(1, len(data)), 64):
        block = data[start : start + 64]
        flags |= END | root if start + 64 >= len(data) else 0
        chain, flags = _compress(chain, block + bytes(64 - len(block)), counter, len(block), flags), 0
    return chain


def blake3(data):
    """The digest of bytes, in hex."""
    return hexlify(struct.pack("<8I", *_tree(data, 0, ROOT))).decode()
