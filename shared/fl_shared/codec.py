"""Bytes ↔ message. What carries tensors is msgpack, the rest JSON; the topic says which kinds may come.

Decoding never raises anything but ``DecodeError`` (which names the field), whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgpack
from pydantic import ValidationError

from fl_shared import messages as m
from fl_shared import topics as t

Model = TypeVar("Model", bound=m.Message)

MAX_JSON_BYTES: Final = 8 * 2**20
MAX_MSGPACK_BYTES: Final = 268_435_455
"""MQTT's own limit for a packet."""

_MSGPACK: Final = (m.ModelManifest, m.ModelChunk, m.Update, m.TrainingFailed)

_KINDS: Final[dict[type[t.Topic], tuple[type[m.Message], ...]]] = {
    t.AggregatorTopic: (m.AggregatorPresence,),
    t.StatusTopic: (m.Status,),
    t.RegisterTopic: (m.Registration,),
    t.PresenceTopic: (m.ClientPresence,),
    t.WorkTopic: (m.Selected,),
    t.RepliesTopic: (m.Admitted, m.Refused, m.Accepted, m.Rejected),
    t.SelectedTopic: (m.Selected,),
    t.MissingTopic: (m.Missing,),
    t.ResultTopic: (m.Result,),
    t.ModelTopic: (m.ModelAnnouncement,),
    t.ManifestTopic: (m.ModelManifest,),
    t.ChunkTopic: (m.ModelChunk,),
    t.UpdatesTopic: (m.Update, m.TrainingFailed),
    t.EvaluationsTopic: (m.Evaluation,),
    t.PredictionsTopic: (m.Prediction,),
}


class DecodeError(Exception):
    """A payload is not what its topic calls for. The text names the field and what was expected."""

    def __init__(self, text: str, *, version: object = m.PROTOCOL_VERSION) -> None:
        super().__init__(text)
        self.wrong_version = version != m.PROTOCOL_VERSION


def encode(message: m.Message) -> bytes:
    """The message as bytes; members that are null because they do not apply are still written."""
    if isinstance(message, _MSGPACK):
        return bytes(msgpack.packb(message.model_dump(), use_bin_type=True))
    return message.model_dump_json().encode()


def decode(topic: t.Topic, payload: bytes) -> m.Message:
    """The message that ``payload`` spells on ``topic``. Raises ``DecodeError``."""
    kinds = _KINDS.get(type(topic))
    if kinds is None:
        raise DecodeError(f"nothing of ours is decoded on {type(topic).__name__}")
    if issubclass(kinds[0], _MSGPACK):
        fields = _unpack(payload)
        model = _model_for(fields, kinds)
        return _validate(lambda: model.model_validate(fields))
    if len(payload) > MAX_JSON_BYTES:
        raise DecodeError(f"{len(payload)} bytes of JSON, at most {MAX_JSON_BYTES}")
    if len(kinds) == 1:
        return _validate(lambda: kinds[0].model_validate_json(payload))
    head = _validate(lambda: m.Message.model_validate_json(payload))
    model = _model_for({"kind": head.kind}, kinds)
    return _validate(lambda: model.model_validate_json(payload))


def _unpack(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_MSGPACK_BYTES:
        raise DecodeError(f"{len(payload)} bytes, at most {MAX_MSGPACK_BYTES}")
    try:
        # Tuples, since the models are strict and frozen; a length that is claimed but not there fails at once.
        fields = msgpack.unpackb(payload, use_list=False, raw=False, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # msgpack raises half a dozen unrelated types for bad bytes
        raise DecodeError(f"not msgpack: {type(error).__name__}: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise DecodeError(f"expected a map, got {type(fields).__name__}")
    return fields


def _model_for(fields: dict[str, Any], kinds: tuple[type[m.Message], ...]) -> type[m.Message]:
    kind = fields.get("kind")
    for model in kinds:
        if model.model_fields["kind"].default == kind:
            return model
    expected = " or ".join(str(model.model_fields["kind"].default) for model in kinds)
    raise DecodeError(
        f"kind: {str(kind)[:50]!r}, expected {expected}", version=fields.get("v", m.PROTOCOL_VERSION)
    )


def _validate(build: Callable[[], Model]) -> Model:
    try:
        return build()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "message"
        version: object = m.PROTOCOL_VERSION
        if field == "v":
            version = first["input"]
        given = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]!r})"
        raise DecodeError(f"{field}: {first['msg']}{given}", version=version) from None
    except RecursionError:
        raise DecodeError("nested too deeply") from None
