"""The log of an edge, for the operator: the request for it, and its lines (protocol, section 12)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fl_shared.protocol.kinds.base import ClientId, Count, Fragment, Message, Timestamp, Token
from fl_shared.system.text import one_line

LogLevel = Literal["debug", "info", "warning", "error"]
LogRefusal = Literal["not-allowed", "needs-operator-kit", "too-many-readers"]
MAX_LOG_TEXT: Final = 400
"""Characters of a line."""
MAX_LOG_LINES: Final = 32
"""Lines in a message."""
MAX_RECENT_LINES: Final = 200
"""Lines of the past that a reader may ask for."""
MAX_LOG_SECONDS: Final = 60
"""Seconds for which a request holds, at most."""


class LogRequest(Message):
    """Asks an edge for its log, on ``fl/clients/<client>/log-request``, never retained.

    ``reader``: a random name of the reader. ``level``: the lowest that it wants. ``recent``: how many lines of the
    past are asked for, if this is the reader's first request. ``seconds``: for how long lines are sent from now on; 0
    ends that. ``public`` (X25519) and ``voucher``: the operator's, in base64url, for an edge that seals.
    """

    kind: Literal["log-request"] = "log-request"
    client: ClientId
    reader: Token
    level: LogLevel
    recent: Annotated[int, Field(ge=0, le=MAX_RECENT_LINES)]
    seconds: Annotated[int, Field(ge=0, le=MAX_LOG_SECONDS)]
    public: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")] | None = None
    voucher: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{98}$")] | None = None


class LogLine(Fragment):
    """A line of a log."""

    time: Timestamp
    level: LogLevel
    text: Annotated[str, StringConstraints(max_length=MAX_LOG_TEXT), AfterValidator(one_line)]


class LogLines(Message):
    """Lines of an edge's log for one reader, on ``fl/clients/<client>/log``, never retained.

    ``number``: of this message to the reader, from 0. ``lines``: in their order. ``recent``: how many lines of the past
    follow in further messages. ``left_out``: how many lines since the last message were too many.
    ``withheld``: how many may say something of the edge's data. ``refused``: why the edge sends no line.
    """

    kind: Literal["log"] = "log"
    client: ClientId
    reader: Token
    number: Count = 0
    lines: Annotated[tuple[LogLine, ...], Field(max_length=MAX_LOG_LINES, fail_fast=True)] = ()
    recent: Count = 0
    left_out: Count = 0
    withheld: Count = 0
    refused: LogRefusal | None = None
