"""The bytes on the wire stay what they are: one file a message kind (``docs/protocol.md``, 1.2 and 2).

A change of these files is a change of the protocol. ``UPDATE_GOLDEN=1`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol.channels import CHANNELS
from tests.support.samples import MESSAGES

GOLDEN = Path(__file__).parents[3] / "golden"


def _path(name: str) -> Path:
    topic, _ = MESSAGES[name]
    return GOLDEN / f"{name}.{CHANNELS.of(topic).encoding}"


@pytest.mark.parametrize("name", MESSAGES)
def test_encoding_gives_the_golden_bytes(name: str) -> None:
    _, message = MESSAGES[name]
    if os.environ.get("UPDATE_GOLDEN"):
        _path(name).write_bytes(codec.encode(message))
    assert codec.encode(message) == _path(name).read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_decoding_the_golden_bytes_gives_the_message(name: str) -> None:
    topic, message = MESSAGES[name]
    assert codec.decode(topic, _path(name).read_bytes()) == message


def test_every_kind_that_is_sent_has_a_golden_vector() -> None:
    assert {type(message) for _, message in MESSAGES.values()} == set(CHANNELS.kinds)


def test_every_golden_file_belongs_to_a_message() -> None:
    """Those of section 9 are in ``kit`` (`test_signatures`, `test_sealing`)."""
    assert {p.name for p in GOLDEN.iterdir() if p.is_file()} == {_path(name).name for name in MESSAGES}


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_members_are_ignored(name: str) -> None:
    """Clause 1.4."""
    topic, message = MESSAGES[name]
    known = codec.encode(message)
    more = (
        known[:1] + b'"x_unknown":{"deep":[1]},' + known[1:]
        if known.startswith(b"{")
        else _with_member(known)
    )
    assert codec.decode(topic, more) == message


def _with_member(payload: bytes) -> bytes:
    import msgpack

    return bytes(msgpack.packb({**msgpack.unpackb(payload), "x_unknown": {"deep": [1]}}))
