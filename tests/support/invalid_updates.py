"""Everything that can be wrong with an update, one fault at a time: what is sent, and the expected outcome.

The model of these edges has the arrays ``a`` (20 × 29) and ``b`` (20).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.builders import digest_of

MANIFEST: Final = Manifest(
    arrays=(ArraySpec(name="a", shape=(20, 29)), ArraySpec(name="b", shape=(20,), role="buffer"))
)
OTHER: Final = Manifest(
    arrays=(ArraySpec(name="a", shape=(29, 20)), ArraySpec(name="b", shape=(20,), role="buffer"))
)
VALUES: Final = MANIFEST.values
Made = dict[str, Any] | bytes
Packed = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True)
class Case:
    """One fault. ``make`` gets a valid update and a function that packs one.

    The text of the rejection contains all ``words``.
    """

    name: str
    reason: str
    words: tuple[str, ...]
    make: Callable[[dict[str, Any], Packed], Made]


def changed(**members: Any) -> Callable[[dict[str, Any], Packed], Made]:
    return lambda update, _: update | members


def in_section(**members: Any) -> Callable[[dict[str, Any], Packed], Made]:
    return lambda update, _: update | {"sections": [update["sections"][0] | members]}


def with_value(index: int, value: float) -> Callable[[dict[str, Any], Packed], Made]:
    """Replaces one value; everything else stays valid."""

    def make(update: dict[str, Any], _: Packed) -> Made:
        vector = np.frombuffer(update["sections"][0]["data"], "<f4").copy()
        vector[index] = value
        return with_data(update, vector.tobytes())

    return make


def of_bytes(length: int) -> Callable[[dict[str, Any], Packed], Made]:
    return lambda update, _: with_data(update, bytes(length))


def with_data(update: dict[str, Any], data: bytes) -> dict[str, Any]:
    section = update["sections"][0] | {"data": data}
    return update | {"digest": digest_of(MANIFEST, data), "sections": [section]}


def without_section(update: dict[str, Any], _: Packed) -> Made:
    return update | {"sections": []}


def two_sections(update: dict[str, Any], _: Packed) -> Made:
    section = update["sections"][0]
    return update | {"sections": [section | {"name": "control"}, section]}


def array_of(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


ANSWERED: Final = (
    # The values
    Case("nan", "not-finite", ("delta: element 3 of 'b' is nan", "finite"), with_value(583, np.nan)),
    Case("infinity", "not-finite", ("delta: element 0 of 'a' is inf",), with_value(0, np.inf)),
    Case("minus-infinity", "not-finite", ("element 579 of 'a' is -inf",), with_value(579, -np.inf)),
    Case("huge-value", "too-large", ("element 7 of 'a'", "magnitude 100.5", "at most 100"), with_value(7, -100.5)),
    # Their number and their meaning
    Case("short", "wrong-size", ("delta.data: 2396 bytes", "expected 2400"), of_bytes(2396)),
    Case("long", "wrong-size", ("delta.data: 2404 bytes", "expected 2400"), of_bytes(2404)),
    Case("megabyte", "wrong-size", ("delta.data: 1000000 bytes", "expected 2400"), of_bytes(1_000_000)),
    Case("no-data", "wrong-size", ("delta.data: 0 bytes",), of_bytes(0)),
    Case("other-shape", "wrong-manifest", (OTHER.digest[:12], MANIFEST.digest[:12]), in_section(manifest=OTHER.digest)),
    Case("other-section", "wrong-manifest", ("sections", "'delta'"), in_section(name="control")),
    Case("two-sections", "wrong-manifest", ("sections: ['control', 'delta']", "expected ['delta']"), two_sections),
    Case("no-section", "malformed", ("sections: ", "at least 1"), without_section),
    Case("half-precision", "malformed", ("sections.0.encoding: ", "'f32'", "'f16'"), in_section(encoding="f16")),
    Case("text-for-data", "malformed", ("sections.0.data: ", "bytes"), in_section(data="text")),
    Case("other-digest", "wrong-digest", ("digest: " + "ab" * 6, "the content has"), changed(digest="ab" * 32)),
    Case("other-base", "wrong-base", ("base: " + "cd" * 6, "expected"), changed(base="cd" * 32)),
    Case("no-base", "wrong-base", ("base: none", "expected"), changed(base=None)),
    # The numbers
    Case("no-examples", "bad-examples", ("examples: 0", "1 to 1000000"), changed(examples=0)),
    Case("too-many-examples", "bad-examples", ("examples: 1000001", "1 to 1000000"), changed(examples=1_000_001)),
    Case("absurd-examples", "malformed", ("examples: ", str(2**63), str(2**53)), changed(examples=2**63)),
    Case("negative-examples", "malformed", ("examples: ", "-5", "greater than or equal to 0"), changed(examples=-5)),
    Case("text-for-examples", "malformed", ("examples: ", "'12'", "integer"), changed(examples="12")),
    Case("nan-metric", "malformed", ("metrics.after.accuracy: ", "nan", "finite"),
        changed(metrics={"before": None, "after": {"accuracy": float("nan")}, "train": None})),
    Case("truncated", "malformed", ("not msgpack",), lambda update, pack: pack(update)[:-7]),
    Case("deep-in-members", "malformed", ("not msgpack",),
        lambda update, pack: pack(update)[:-1] + b"\x91" * 100_000),
)  # fmt: skip
"""Cases that are rejected; their edges are out of the round."""

NOT_ANSWERED: Final = (
    Case("no-map", "malformed", ("expected a map",), lambda *_: b"\x93\x01\x02\x03"),
    Case("deep", "malformed", ("100 maps and arrays",), lambda *_: b"\x81\xa4kind" + b"\x91" * 1020 + b"\xc0"),
    Case("many-containers", "malformed", ("100",),
        lambda *_: b"\x81\xa1x" + array_of(20_000, b"\x96" + b"\x90" * 6)),
    Case("long-claim", "malformed", ("not msgpack",), lambda *_: b"\x81\xa1x\xdd\xff\xff\xff\xff"),
    Case("other-kind", "malformed", ("kind: 'presence'", "expected update or offer"), changed(kind="presence")),
    Case("no-digest", "malformed", ("digest: ", "'xyz'"), changed(digest="xyz")),
    Case("negative-round", "malformed", ("round: ", "-1"), changed(round=-1)),
    Case("other-version", "wrong-version", ("v: protocol version 1", "expected 2"), changed(v=1)),
    Case("other-run", "other-run", ("run: 'elsewhere'", "expected"), changed(run="elsewhere")),
    Case("other-incarnation", "other-incarnation", ("incarnation: 7", "expected 1"), changed(incarnation=7)),
    Case("other-client", "client-mismatch", ("client: 'good-0'", "expected 'other-client'"), changed(client="good-0")),
)  # fmt: skip
"""Cases that do not show whose update they are: they are counted, and the edge stays in the round."""
