"""What all messages are made of: the types of their members, and their base classes.

Unknown members are ignored, so that a message may carry more (such as ``sig``, see `signatures`). Known members are
checked strictly: no string for a number, no NaN, no infinity. ``v`` is the protocol version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from fl_shared.system.text import one_line

PROTOCOL_VERSION: Final = 2
ProtocolVersion = Literal[2]
"""The type of ``v``: no program reads messages of another version of the protocol."""
MAX_CHUNK: Final = 2**24
"""The most bytes in one chunk. Larger packets are slow, and each program that handles one holds a copy of it."""
MAX_PACKET: Final = MAX_CHUNK + 2**16
"""The most bytes in a packet that either program accepts: one chunk. All other messages are smaller."""

ClientId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A random name of a session (the lifetime of one connection) or of a device."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TaskName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(:[A-Za-z_][A-Za-z0-9._]{0,127})?$")
]
"""The name of an installed task, or ``package.module:Class``."""
MAX_TASK_SPEC: Final = 4096
TaskSpec = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*(\?[A-Za-z0-9%&=._~-]*)?$", max_length=MAX_TASK_SPEC
    ),
]
"""A task's name and options (`task_spec`)."""
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(one_line)]
"""Text for people: it appears in logs and on terminals."""


def _check_timestamp(text: str) -> str:
    datetime.fromisoformat(text)  # raises ValueError, as pydantic expects of a validator
    return text


Timestamp = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"),
    AfterValidator(_check_timestamp),
]
"""A time in UTC, as ISO 8601 with the suffix Z."""
MAX_COUNT: Final = 2**53
"""The largest integer that every reader of JSON can represent exactly."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Incarnation = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, le=1e9)]
MAX_METRICS: Final = 128
"""Metrics in a message."""
MAX_METRIC_NAME: Final = 64
"""Characters of a metric's name."""
Metrics = Annotated[
    dict[Annotated[str, StringConstraints(max_length=MAX_METRIC_NAME)], Number], Field(max_length=MAX_METRICS)
]
EncodingName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
"""The name of an encoding that this program may not have, without parameters; `KnownEncoding` is one that it has."""
EncodingChoice = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}(:[a-z0-9.=_-]{1,32})?$")]
"""An encoding that this program may not have, with its parameters: ``NAME`` or ``NAME:PARAMETER``."""
SectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
AbilityName = EncodingName
"""The name of something that an edge can do in training; this program may not know it."""
ClientRole = Literal["train", "predict", "evaluate"]
PresenceState = Literal["online", "offline"]
Split = Literal["test", "holdout", "personal"]
"""``personal``: the holdout, before and after the edge has trained a model of its own from the version."""


class Fragment(BaseModel):
    """A nested object of a message, and the base of the messages."""

    # Values come from strangers and seldom repeat, so pydantic must not cache 16,384 of their strings.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, cache_strings="keys"
    )


class Message(Fragment):
    """The members of every message: the protocol version and the kind of the message."""

    v: ProtocolVersion = PROTOCOL_VERSION
    kind: str


class Scoped(Message):
    """A message with an envelope: its run, the incarnation of the aggregator, and a sequence number.

    ``incarnation`` grows by one at each start of the run's aggregator, and ``seq`` with each message of the sender.
    """

    run: RunId
    incarnation: Incarnation
    seq: Count


class Reply(Scoped):
    """An answer on ``fl/replies/<client>`` to one session of one client. Other sessions ignore it."""

    client: ClientId
    session: Token
