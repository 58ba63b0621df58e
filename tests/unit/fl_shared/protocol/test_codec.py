"""Bad bytes become ``DecodeError`` naming the field, and nothing else (clause 1.5)."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.samples import MESSAGES

TOPICS = sorted({topic for topic, _ in MESSAGES.values()}, key=repr)


def _fields(name: str) -> dict[str, Any]:
    payload = codec.encode(MESSAGES[name][1])
    fields: dict[str, Any] = json.loads(payload) if payload.startswith(b"{") else msgpack.unpackb(payload)
    return fields


def _bytes(name: str, fields: dict[str, Any]) -> bytes:
    if codec.encode(MESSAGES[name][1]).startswith(b"{"):
        return json.dumps(fields).encode()
    return bytes(msgpack.packb(fields))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("update", "examples", -1),
        ("update", "examples", "57"),
        ("update", "examples", 57.0),
        ("update", "examples", True),
        ("update", "round", -1),
        ("update", "client", "a/b"),
        ("update", "client", "+"),
        ("update", "client", "x" * 65),
        ("update", "client", "é"),
        ("update", "client", "7\n"),
        ("update", "digest", "12"),
        ("update", "sections", []),
        ("update", "sections", [{}] * 17),
        ("update", "run", None),
        ("update", "incarnation", 0),
        ("update", "v", 1),
        ("update", "kind", "nonsense"),
        ("evaluation", "loss", "0.1"),
        ("evaluation", "loss", "low"),
        ("evaluation", "examples", -1),
        ("register-first", "roles", []),
        ("register-first", "roles", ["train", "rule"]),
        ("register-first", "session", "s" * 65),
        ("register-first", "task", "../digits"),
        ("presence", "state", "away"),
        ("selected", "seconds_left", -1.0),
        ("selected", "training", {"epochs": 0, "batch_size": 32, "lr": 0.1, "momentum": 0.9, "seed": 0}),
        ("model", "chunks", 0),
        ("manifest", "chunk_size", 0),
        ("model-chunk", "index", -1),
        ("model-chunk", "data", "text"),
    ],
)
def test_a_bad_member_is_named(name: str, field: str, value: object) -> None:
    fields = _fields(name)
    assert field in fields
    with pytest.raises(codec.DecodeError, match=field):
        codec.decode(MESSAGES[name][0], _bytes(name, {**fields, field: value}))


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_are_finite(text: bytes) -> None:
    payload = codec.encode(MESSAGES["evaluation"][1]).replace(b'"loss":0.125', b'"loss":' + text)
    with pytest.raises(codec.DecodeError):
        codec.decode(MESSAGES["evaluation"][0], payload)
    fields = _fields("update") | {"seconds": float(text.decode().replace("1e999", "inf"))}
    with pytest.raises(codec.DecodeError, match="seconds"):
        codec.decode(MESSAGES["update"][0], _bytes("update", fields))


@pytest.mark.parametrize("name", MESSAGES)
def test_every_member_but_the_optional_is_needed(name: str) -> None:
    topic, message = MESSAGES[name]
    for field, info in type(message).model_fields.items():
        if not info.is_required():
            continue
        fields = _fields(name)
        del fields[field]
        with pytest.raises(codec.DecodeError, match=field):
            codec.decode(topic, _bytes(name, fields))


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_a_wrong_version_is_told_apart(version: object) -> None:
    with pytest.raises(codec.DecodeError) as caught:
        codec.decode(
            t.RegisterTopic("7"), _bytes("register-first", {**_fields("register-first"), "v": version})
        )
    assert caught.value.wrong_version


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"null",
        b"[]",
        b"{",
        b"\x91" * 100_000,
        b"\x81\xa1a" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd4\x01\x00",
        b'{"v":2}' + b"\xff",
    ],
)
@pytest.mark.parametrize("topic", TOPICS, ids=repr)
def test_junk_is_refused(topic: t.Topic, payload: bytes) -> None:
    with pytest.raises(codec.DecodeError):
        codec.decode(topic, payload)


@given(topic=st.sampled_from(TOPICS), payload=st.binary(max_size=300))
def test_no_bytes_escape(topic: t.Topic, payload: bytes) -> None:
    with pytest.raises(codec.DecodeError):
        codec.decode(topic, payload)


@given(name=st.sampled_from(sorted(MESSAGES)), data=st.data())
def test_no_mutation_escapes(name: str, data: st.DataObject) -> None:
    topic, message = MESSAGES[name]
    payload = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = codec.decode(topic, bytes(payload))
    except codec.DecodeError:
        return
    assert isinstance(decoded, m.Message)


def _large(name: str, size: int) -> tuple[t.Topic, m.Message]:
    topic, message = MESSAGES[name]
    data = bytes(range(256)) * (size // 256)
    if isinstance(message, m.Update):
        section = message.sections[0].model_copy(update={"data": data})
        return topic, message.model_copy(update={"sections": (section,)})
    return topic, message.model_copy(update={"data": data})


@pytest.mark.parametrize("name", ["update", "update-first-weights", "model-chunk", "update-chunk"])
@pytest.mark.parametrize("size", [2**15, 2**16, 2**17 + 2**8])
def test_the_data_of_a_large_message_is_not_copied(name: str, size: int) -> None:
    topic, message = _large(name, size)
    payload = codec.encode(message)
    assert payload == msgpack.packb(message.model_dump()), "however it was made"
    for given_as in (payload, memoryview(bytearray(payload))):
        decoded = codec.decode(topic, given_as)
        assert decoded == message
        data = decoded.sections[-1].data if isinstance(decoded, m.Update) else getattr(decoded, "data", b"")
        assert isinstance(data, memoryview) is (len(payload) >= codec.MIN_SPLIT_BYTES)
        assert not isinstance(data, memoryview) or data.readonly


@pytest.mark.parametrize("name", ["update", "model-chunk", "update-chunk"])
def test_a_large_message_in_another_order_is_understood_too(name: str) -> None:
    topic, message = _large(name, 2**17)
    fields = message.model_dump()
    turned = msgpack.packb(dict(reversed(fields.items())))
    assert codec.decode(topic, turned) == message
    strange = msgpack.packb(
        {**fields, "data": b"x" * 2**17} if name == "update" else {**fields, "zzz": b"y" * 2**17}
    )
    assert codec.decode(topic, strange) == message, "an unknown member at the end is ignored"


@given(data=st.data())
def test_no_mutation_of_a_large_message_escapes(data: st.DataObject) -> None:
    topic, message = _large(data.draw(st.sampled_from(["update", "model-chunk", "update-chunk"])), 2**16)
    payload = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.sampled_from([len(payload), len(payload) - 1, 300])) :]
    try:
        codec.decode(topic, bytes(payload))
    except codec.DecodeError:
        return


@pytest.mark.parametrize("member", ["output", "example"])
@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN"])
def test_an_answer_has_no_numbers_that_json_lacks(member: str, number: str) -> None:
    """A parser takes them, but they could not be said again."""
    topic, message = MESSAGES["prediction"]
    for found in ("1.5", number):
        fields = {**json.loads(codec.encode(message)), member: {"value": ["HERE"]}}
        payload = json.dumps(fields).replace('"HERE"', found).encode()
        if found == "1.5":
            assert codec.decode(topic, codec.encode(codec.decode(topic, payload))) == codec.decode(
                topic, payload
            )
        else:
            with pytest.raises(codec.DecodeError, match=member):
                codec.decode(topic, payload)
