"""Makes messages invalid: flips bits, cuts, extends or splices them, or replaces one value."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, cast

import msgpack

from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from tests.support.samples import MESSAGES

Path = tuple[str | int, ...]
Format = Literal["json", "msgpack", "bytes"]

EXTREMES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2, 3, 255, 256, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
    "", "x", "0", "1", "NaN", "nul\0nul", "x" * 65, "é" * 64, "١٢٣", "Ⅳ", "木", "\u202e\ufeff", "\ud800", "../../etc",
    "+", "#", "$SYS", "a/b", "A" * 100_000, "f" * 64, "0" * 64, "F" * 64, "online", "offline", "test",
    "f32", "bf16", "q8", "topk:0.01", "topk:1", "shuffle-deflate", "sum", "masked32", "masked64", "raw",
    b"", b"\0", b"\xff" * 16, [], {}, [[]], {"": {}}, [None] * 300, {"k" + str(n): n for n in range(300)},
    [float("nan")], {"loss": float("inf")}, {"accuracy": "1"}, ["x"] * 20_001, [0, 1], (1, 2, 3),
)  # fmt: skip
"""Replacements for a value. Some fit somewhere, most fit nowhere."""

RAW: Final[dict[Format, tuple[bytes, ...]]] = {
    "json": (
        b"1e400", b"-1e400", b"9" * 400, b"9" * 5000, b"-0", b"1.0", b"1e2", b"[" * 2000 + b"]" * 2000, b"[" * 100,
        b'{"a":' * 500 + b"1" + b"}" * 500, b'"\\ud800"', b'"\\u0000"', b"Infinity", b"01", b"tru", b'"', b"",
    ),
    "msgpack": (
        b"\x91" * 1000 + b"\xc0", b"\x91" * 600, b"",
        b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff", b"\xc1", b"\xd4\x05\x00", b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\x00\x00\x00\x00",
        b"\xa2\xff\xfe", b"\xca\x7f\xc0\x00\x00", b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00", b"\xcf" + b"\xff" * 8,
    ),
    "bytes": (b"",),
}  # fmt: skip
"""Payloads that no encoder makes: huge numbers, lengths without data, very deep nesting."""

_MARK: Final = "@raw@"


@dataclass(frozen=True)
class Seed:
    """A valid message. ``format``: how to decode its payload for a change inside it."""

    topic: str
    payload: bytes
    retain: bool = False

    @cached_property
    def format(self) -> Format:
        if self.payload[:1] == b"{":
            return "json"
        first = self.payload[:1]
        is_map = first in (b"\xde", b"\xdf") or (b"\x80" < first < b"\x90" and self.payload[:4] != b"\x89PNG")
        return "msgpack" if is_map else "bytes"

    @cached_property
    def tree(self) -> Any:
        if self.format == "json":
            return json.loads(self.payload)
        return msgpack.unpackb(self.payload, strict_map_key=False)

    @cached_property
    def paths(self) -> list[Path]:
        """The paths of all its values."""
        return [] if self.format == "bytes" else _paths(self.tree)


def golden(client: str) -> tuple[Seed, ...]:
    """A valid message of every kind that a client of this name sends or receives, but of another run."""
    found = []
    for topic, message in MESSAGES.values():
        levels = [client if level == "7" else level for level in t.build("fl", topic).split("/")]
        payload = codec.encode(message)
        if payload[:1] == b"{":
            payload = payload.replace(b'"7"', f'"{client}"'.encode())
        else:
            payload = payload.replace(msgpack.packb("7"), msgpack.packb(client))
        found.append(Seed("/".join(levels), payload))
    return tuple(found)


def _paths(tree: Any, at: Path = (), most: int = 400) -> list[Path]:
    found: list[Path] = []
    steps: Sequence[tuple[str | int, Any]] = ()
    if isinstance(tree, dict):
        steps = list(tree.items())
    elif isinstance(tree, list):
        steps = list(enumerate(tree[:20]))
    for key, value in steps:
        if len(found) < most:
            found += [(*at, key), *_paths(value, (*at, key), most)]
    return found


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Any, path: Path, value: Any) -> Any:
    """The tree with another value at ``path``; only the containers on that path are copied."""
    if not path:
        return value
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = _with(tree[path[0]], path[1:], value)
    return copy


def _without(tree: Any, path: Path) -> Any:
    parent = _at(tree, path[:-1])
    copy: Any = dict(parent) if isinstance(parent, dict) else list(parent)
    del copy[path[-1]]
    return _with(tree, path[:-1], copy)


class Mutator:
    """The random choices of the noise; the same ``rng`` and calls give the same noise."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def payload(self, seed: Seed, others: Sequence[Seed]) -> bytes:
        """A payload like the seed's, changed or not. ``others``: messages to splice it with."""
        draw = self.rng.random()
        if draw < 0.04:
            return seed.payload
        if draw < 0.62 and seed.paths:
            changed = seed.tree
            for _ in range(1 if self.rng.random() < 0.8 else 2):
                changed = self._change(seed, changed, others)
            return self.spell(changed, seed.format)
        if draw < 0.78:
            return self._flip(seed.payload)
        if draw < 0.86:
            return seed.payload[: self.rng.randrange(len(seed.payload) + 1)]
        if draw < 0.90:
            return self._grow(seed.payload)
        if draw < 0.98 and others:
            return self._splice(seed.payload, self.rng.choice(others).payload)
        return self.rng.randbytes(self.rng.randrange(64)) if draw < 0.99 else b""

    def topic(self, topic: str, others: Sequence[Seed]) -> str:
        """The topic, usually unchanged."""
        draw = self.rng.random()
        if draw < 0.94:
            return topic
        if draw < 0.96 and others:
            return self.rng.choice(others).topic
        levels = topic.split("/")
        at = self.rng.randrange(len(levels))
        odd = (
            "",
            "+",
            "#",
            "\0",
            "é",
            "٣",
            "x" * 65,
            "01",
            "-1",
            "9" * 20,
            "$SYS",
            "fl",
            "manifest",
            "0",
            levels[at] * 2,
        )
        levels[at : at + self.rng.randrange(2)] = [self.rng.choice(odd)]
        return "/".join(levels)

    def _change(self, seed: Seed, tree: Any, others: Sequence[Seed]) -> Any:
        path = self.rng.choice(seed.paths)
        draw = self.rng.random()
        if draw < 0.12:
            return self.changed(tree, path, "drop", None)
        if draw < 0.20:
            return self.changed(tree, path, "replace", _MARK)
        if draw < 0.45:
            return self.changed(tree, path, "near", None)
        other = self.rng.choice(others) if draw < 0.55 and others else None
        if other is not None and other.paths:
            return self.changed(tree, path, "replace", _at(other.tree, self.rng.choice(other.paths)))
        return self.changed(tree, path, "replace", self.rng.choice(EXTREMES))

    def changed(self, tree: Any, path: Path, how: Literal["drop", "near", "replace"], value: Any) -> Any:
        """The tree without the value at ``path``, with one like it, or with ``value`` in its place."""
        try:
            if how == "drop":
                return _without(tree, path)
            return _with(tree, path, value if how == "replace" else self._near(_at(tree, path)))
        except (KeyError, IndexError, TypeError):
            return tree  # a change before has taken it away

    def _near(self, old: Any) -> Any:
        """A wrong value of the same type, which is noticed only later."""
        rng = self.rng
        match old:
            case bool():
                return not old
            case int():
                return old + rng.choice((-2, -1, 1, 2, 1000, -old * 2))
            case float():
                return rng.choice((old + 1, -old, old * 1e6, old / 3))
            case str() if old:
                at = rng.randrange(len(old))
                return old[:at] + rng.choice("0aF-_ .\0é") + old[at + rng.randrange(2) :]
            case bytes() if old:
                return rng.choice(
                    (self._flip(old), old[:-4], old + b"\0\0\0\0", self._not_finite(old), bytes(len(old)))
                )
            case list() if old:
                return rng.choice((old[:-1], old + old[-1:], old[::-1], [rng.choice(old)]))
            case dict() if old:
                return dict(reversed(old.items()))
            case _:
                return rng.choice(EXTREMES)

    def _not_finite(self, data: bytes) -> bytes:
        """Makes one value of a vector NaN, infinite or huge."""
        at = self.rng.randrange(max(1, len(data) // 4)) * 4
        value = self.rng.choice(
            (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"\1\0\0\0")
        )
        return data[:at] + value + data[at + 4 :]

    def spell(self, tree: Any, format: Format) -> bytes:  # noqa: A002  it is what it is called
        """The tree as a payload; values that the format cannot express become something else."""
        try:
            if format == "json":
                text = json.dumps(tree, ensure_ascii=self.rng.random() < 0.5, default=repr)
                payload, mark = text.encode(errors="surrogatepass"), json.dumps(_MARK).encode()
            else:
                payload = cast(bytes, msgpack.packb(tree, use_bin_type=True, unicode_errors="surrogatepass"))
                mark = cast(bytes, msgpack.packb(_MARK))
        except (OverflowError, ValueError, TypeError):
            return repr(tree).encode(errors="replace")
        return payload.replace(mark, self.rng.choice(RAW[format])) if mark in payload else payload

    def _flip(self, payload: bytes) -> bytes:
        if not payload:
            return b"\0"
        flipped = bytearray(payload)
        for _ in range(self.rng.choice((1, 1, 1, 2, 8))):
            # Usually change the head: a large message is nearly all data.
            most = len(flipped) if self.rng.random() < 0.3 else min(len(flipped), 600)
            flipped[self.rng.randrange(most)] ^= 1 << self.rng.randrange(8)
        return bytes(flipped)

    def _grow(self, payload: bytes) -> bytes:
        more = self.rng.choice(
            (b"\0", b" ", b"}", payload[:100], self.rng.randbytes(20), b"\xff" * 5000, b"{" * 70_000)
        )
        at = self.rng.choice((0, len(payload), self.rng.randrange(len(payload) + 1)))
        return payload[:at] + more + payload[at:]

    def _splice(self, one: bytes, other: bytes) -> bytes:
        return one[: self.rng.randrange(len(one) + 1)] + other[self.rng.randrange(len(other) + 1) :]
