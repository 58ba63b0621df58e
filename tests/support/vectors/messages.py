"""``messages.json``: every message of the golden files, with its topic, its bytes and its content."""

from __future__ import annotations

import json
from typing import Any

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from tests.support.samples import MESSAGES


def content(message: m.Message) -> dict[str, Any]:
    """The members of a message as JSON has them; bytes become ``{"hex": "…"}``."""
    found: dict[str, Any] = json.loads(json.dumps(message.model_dump(), default=_bytes))
    return found


def _bytes(value: bytes) -> dict[str, str]:
    return {"hex": value.hex()}


def vectors() -> dict[str, Any]:
    """All messages by name."""
    return {
        name: {
            "topic": t.build("fl", topic),
            "encoding": CHANNELS.of(topic).encoding,
            "payload": codec.encode(message).hex(),
            "content": content(message),
        }
        for name, (topic, message) in MESSAGES.items()
    }
