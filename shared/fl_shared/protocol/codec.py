"""Converts payloads to messages and back.

`channels` says which encoding and size a topic allows, and which kinds of messages. Decoding raises nothing
but ``DecodeError`` (which names the field), whatever the bytes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import msgpack
from pydantic import ValidationError

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels, kind_of
from fl_shared.protocol.limits import MAX_JSON
from fl_shared.system.text import one_line
from fl_shared.tensors.manifest import MAX_ARRAYS

MessageT = TypeVar("MessageT", bound=m.Message)

MAX_CONTAINERS: Final = 100_000
"""Maps and arrays in a msgpack message, at most: one byte in a payload may take a hundred in memory."""
MAX_CONTAINERS_WITHOUT_ARRAYS: Final = 100
"""The same of a message that has no reason to describe arrays: sixteen sections and metrics have two dozen."""
MAX_CLAIM: Final = 4096
"""Bytes of an update in which `claim_in` looks for its sender."""
MAX_MEMBERS: Final = 256
"""Members of a msgpack map, at most; metrics have at most 64."""
SIGNATURE_OVERHEAD: Final = 95
"""Bytes by which a message grows when it is signed (`signatures`)."""
SEALED_MARKER: Final = 0xC1
"""The first byte of a sealed payload (`sealing`). No JSON and no msgpack begins with it."""


class DecodeError(Exception):
    """A payload is not valid on its topic. The text names the field and what was expected.

    ``wrong_version``: whether the payload is of another version of the protocol.
    """

    def __init__(self, text: str, *, version: object = m.PROTOCOL_VERSION) -> None:
        super().__init__(text)
        self.wrong_version = version != m.PROTOCOL_VERSION


def encode(message: m.Message, channels: Channels = CHANNELS) -> bytes:
    """The payload of a message; members that are null because they do not apply are included."""
    return b"".join(encode_pieces(message, channels))


def encode_pieces(message: m.Message, channels: Channels = CHANNELS) -> tuple[bytes | memoryview, ...]:
    """The payload of a message in pieces, one after the other.

    The data of chunks and updates, which may be a ``memoryview``, is a piece of its own, and not copied.
    """
    match message:
        case m.ModelChunk() | m.UpdateChunk():
            return _pack_with_data(message)
        case m.Update():
            header = _packed(message.model_dump(exclude={"sections"}) | {"sections": ()})
            pieces: list[bytes | memoryview] = [header[:-1], _array_header(len(message.sections))]
            for section in message.sections:
                pieces += _pack_with_data(section)
            return tuple(pieces)
        case _ if channels.carrying(type(message)).encoding == "msgpack":
            return (_packed(message.model_dump()),)
        case m.Edges():  # most members of most edges are null: without them, it has a third of the bytes
            return (message.model_dump_json(exclude_none=True).encode(),)
        case _:
            return (message.model_dump_json().encode(),)


def _packed(fields: dict[str, Any]) -> bytes:
    return cast(bytes, msgpack.packb(fields, use_bin_type=True))


def _pack_with_data(
    message: m.ModelChunk | m.UpdateChunk | m.Section,
) -> tuple[bytes, bytes | memoryview]:
    """A msgpack map whose last member is ``data``, in pieces, so that msgpack does not copy the data."""
    header = _packed(message.model_dump(exclude={"data"}) | {"data": b""})
    return header[: -len(_NO_DATA)] + _bin_header(len(message.data)), message.data


_NO_DATA: Final = b"\xc4\x00"
_DATA_KEY: Final = b"\xa4data"
_DATA_BIN32: Final = _DATA_KEY + b"\xc6"
MIN_SPLIT_BYTES: Final = 2**16
"""Bytes of a message from which `decode` looks for the data first. The head must be shorter than this."""


def _bin_header(length: int) -> bytes:
    """The header of msgpack's bin 8, bin 16 or bin 32."""
    if length < 2**8:
        return struct.pack(">BB", 0xC4, length)
    return struct.pack(">BH", 0xC5, length) if length < 2**16 else struct.pack(">BI", 0xC6, length)


def _array_header(count: int) -> bytes:
    """The header of msgpack's fixarray or array 16."""
    return bytes([0x90 | count]) if count < 16 else struct.pack(">BH", 0xDC, count)


def decode(
    topic: t.Topic,
    payload: bytes | memoryview,
    channels: Channels = CHANNELS,
    *,
    max_containers: int = MAX_CONTAINERS,
) -> m.Message:
    """The message in a ``payload`` on ``topic``. Raises ``DecodeError``.

    ``max_containers``: the most maps and arrays in msgpack. If the data of a large chunk or update is at the end
    of the payload, it becomes a view of ``payload``, not a copy.
    """
    channel = channels.of(topic)
    kinds = channel.messages
    if not kinds:
        raise DecodeError(f"no message is expected on {type(topic).__name__}")
    if len(payload) > channel.largest:
        what = channel.encoding.replace("json", "JSON")
        raise DecodeError(f"{len(payload)} bytes of {what}, expected at most {channel.largest}")
    if channel.encoding == "msgpack":
        split = _split_data(payload, max_containers)
        if split is not None:
            return _join_data(*split, kinds)
        fields = _unpack(payload, max_containers)
        model = _model_for(fields, kinds)
        return _validate(lambda: model.model_validate(fields))
    payload = bytes(payload)
    if len(kinds) == 1:
        return _validate(lambda: kinds[0].model_validate_json(payload))
    header = _validate(lambda: m.Message.model_validate_json(payload))
    model = _model_for({"kind": header.kind}, kinds)
    return _validate(lambda: model.model_validate_json(payload))


def is_sealed(payload: bytes | memoryview) -> bool:
    """Whether a payload is sealed, judging by its first byte."""
    return len(payload) > 0 and payload[0] == SEALED_MARKER


def session_claim_in(payload: bytes | memoryview) -> m.SessionClaim | None:
    """What JSON of any version of the protocol says of its session, or None if it says nothing."""
    try:
        return m.SessionClaim.model_validate_json(bytes(payload[:MAX_JSON]))
    except ValidationError:
        return None


def claim_in(payload: bytes | memoryview) -> m.UpdateClaim | None:
    """The sender, round and digest of an update that is not valid, or None if these cannot be read.

    Only the first `MAX_CLAIM` bytes are looked at, whatever comes behind.
    """
    unpacker = msgpack.Unpacker(use_list=False, raw=False, strict_map_key=True, max_ext_len=0)
    unpacker.feed(payload[:MAX_CLAIM])
    fields: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # as in `_unpack`; also where the bytes end
        for _ in range(unpacker.read_map_header()):
            name = unpacker.unpack()
            if name in m.UpdateClaim.model_fields:
                fields[name] = unpacker.unpack()
            else:
                unpacker.skip()
    try:
        return m.UpdateClaim.model_validate(fields)
    except ValidationError:
        return None


def _split_data(payload: bytes | memoryview, max_containers: int) -> tuple[dict[str, Any], memoryview] | None:
    """A large message's fields, with its data apart. None if the message does not end with the data."""
    if len(payload) < MIN_SPLIT_BYTES:
        return None
    view = memoryview(payload).toreadonly()
    header = bytes(view[:MIN_SPLIT_BYTES])
    start = header.find(_DATA_BIN32)
    while start >= 0:
        data_start = start + len(_DATA_BIN32) + 4
        length = int.from_bytes(header[data_start - 4 : data_start], "big")
        if data_start + length == len(view) and data_start <= MIN_SPLIT_BYTES:
            fields = _unpack(header[: start + len(_DATA_KEY)] + _NO_DATA, max_containers)
            return (fields, view[data_start:]) if _ends_in_data(fields) else None
        start = header.find(_DATA_BIN32, start + 1)
    return None


def _ends_in_data(fields: dict[str, Any]) -> bool:
    """Whether a message ends with the data of a chunk, or of an update's last section."""
    last = next(reversed(fields), None)
    if last == "sections" and isinstance(fields[last], tuple) and fields[last]:
        section = fields[last][-1]
        return isinstance(section, dict) and next(reversed(section), None) == "data"
    return last == "data"


def _join_data(fields: dict[str, Any], data: memoryview, kinds: tuple[type[m.Message], ...]) -> m.Message:
    model = _model_for(fields, kinds)
    message = _validate(lambda: model.model_validate(fields))
    match message:
        case m.ModelChunk() | m.UpdateChunk() if "data" in fields:
            return message.model_copy(update={"data": data})
        case m.Update() if next(reversed(fields)) == "sections":
            *others, last = message.sections
            return message.model_copy(update={"sections": (*others, last.model_copy(update={"data": data}))})
        case _:
            return message  # this version does not know the member at its end


def _unpack(payload: bytes | memoryview, max_containers: int) -> dict[str, Any]:
    containers = 0

    def counted(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > max_containers:
            raise ValueError(f"more than {max_containers} maps and arrays")
        return container

    try:
        # Tuples, since the models are strict and frozen. A length that is claimed but not there fails at
        # once.
        fields = msgpack.unpackb(
            payload,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_ext_len=0,
            max_map_len=MAX_MEMBERS,
            max_array_len=min(MAX_ARRAYS, max_containers),
            object_hook=counted,
            list_hook=counted,
        )
    except Exception as error:  # msgpack raises half a dozen unrelated types for bad bytes
        raise DecodeError(f"not msgpack: {type(error).__name__}: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise DecodeError(f"expected a map, got {type(fields).__name__}")
    return fields


def _model_for(fields: dict[str, Any], kinds: tuple[type[m.Message], ...]) -> type[m.Message]:
    kind = fields.get("kind")
    for model in kinds:
        if kind_of(model) == kind:
            return model
    expected = " or ".join(map(kind_of, kinds))
    raise DecodeError(
        f"kind: {_short_repr(kind)}, expected {expected}", version=fields.get("v", m.PROTOCOL_VERSION)
    )


def _short_repr(value: object) -> str:
    """A foreign value in an error's text: cut off, and only its type if it may be nested or large."""
    match value:
        case str() | bytes():
            return repr(value[:60])
        case bool() | float() | None:
            return repr(value)
        case int() if abs(value) < 2**64:
            return repr(value)
        case _:
            return f"a {type(value).__name__}"


def _validate(build: Callable[[], MessageT]) -> MessageT:
    try:
        return build()
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_context=False)[0]
        # The location may contain a map's key, which the sender chose.
        field = one_line(".".join(str(key)[:64] for key in first_error["loc"])) or "message"
        version: object = m.PROTOCOL_VERSION
        if field == "v" and first_error["type"] != "missing":
            version = first_error["input"]
            text = f"v: protocol version {_short_repr(version)}, expected {m.PROTOCOL_VERSION}"
            raise DecodeError(text, version=version) from None
        received = "" if first_error["type"] == "missing" else f" (got {_short_repr(first_error['input'])})"
        raise DecodeError(f"{field}: {first_error['msg']}{received}", version=version) from None
    except (RecursionError, MemoryError) as error:
        raise DecodeError(f"cannot be decoded: {type(error).__name__}") from None
