"""What all messages are made of: the types of their members, and their base classes.

Unknown members are ignored, so that later versions may add some (and ``sig``, see `signatures`); what is known is
checked strictly: no string for a number, no NaN, no infinity. ``v`` is the protocol version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from fl_shared.system.text import one_line

PROTOCOL_VERSION: Final = 1
MAX_CHUNK: Final = 2**24
"""Bytes of a chunk of a model or an update. Larger packets are slow, and cost everyone on their way a copy."""
MAX_PACKET: Final = MAX_CHUNK + 2**16
"""Bytes of the largest packet that either side takes: a chunk's. Whatever else there is, is smaller."""

ClientId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A random name: of a session (one connection's life) or of a device."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(one_line)]
"""For people: it comes to logs and terminals."""


def _check_timestamp(text: str) -> str:
    datetime.fromisoformat(text)  # its ValueError is what pydantic expects
    return text


Timestamp = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"),
    AfterValidator(_check_timestamp),
]
"""UTC."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, le=1e9)]
Metrics = Annotated[dict[Annotated[str, StringConstraints(max_length=64)], Number], Field(max_length=64)]
EncodingName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
"""Of an encoding that this version need not know; `KnownEncoding` is one that it does."""
ClientRole = Literal["train", "predict", "evaluate"]
PresenceState = Literal["online", "offline"]
Split = Literal["test", "holdout"]


class Fragment(BaseModel):
    """A part of a message; also the base of the messages themselves."""

    # Values come from strangers and hardly ever twice: pydantic is not to keep 16,384 of their strings.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, cache_strings="keys"
    )


class Message(Fragment):
    v: Literal[1] = PROTOCOL_VERSION
    kind: str


class Scoped(Message):
    """The envelope. ``epoch`` grows at each start of the aggregator; ``seq`` with each message of its sender."""

    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]
    seq: Count


class Reply(Scoped):
    """``fl/replies/<client>``: to one session of one client; other sessions ignore it."""

    client: ClientId
    session: Token
