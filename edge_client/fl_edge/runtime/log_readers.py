"""Answers requests for the log of an edge: recent lines first, then live ones until the request expires (section 12).

Without a request nothing is sent. PURE, except that it logs nothing and the caller passes the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from fl_edge.runtime.recent_lines import Line, RecentLines
from fl_shared.protocol import messages as m
from fl_shared.system.flood_control import Interval
from fl_shared.system.token_bucket import Rate, TokenBucket

if TYPE_CHECKING:
    from fl_shared.security.sealing import Sealer

LINE_RATE: Final = Rate(20, 60)
"""Live lines for a reader per second, and at once."""
FLUSH_INTERVAL: Final = 1.0
"""Seconds between two messages to a reader, unless it asks."""
MAX_READERS: Final = 4
"""Readers of all edges of a process at a time."""
READER_RATE: Final = Rate(0.5, 8)
"""New readers per second, and at once: the first answer has many recent lines, and anybody can repeat a request."""
LEVELS: Final[tuple[m.LogLevel, ...]] = get_args(m.LogLevel)

SealerFor = Callable[[m.LogRequest], "Sealer | None"]
"""Makes a sealer for the reader; null if it may not read what the edge seals."""


@dataclass(slots=True)
class Reader:
    """A reader of one edge's log. ``until``: when its request runs out. ``next_line``: the first that it has not had.

    ``past``: recent lines that are still to be sent.
    """

    request: m.LogRequest
    until: float
    next_line: int
    bucket: TokenBucket
    sealer: Sealer | None
    past: list[Line] = field(default_factory=list)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A message for a reader, sealed with ``sealer``; null: not sealed."""

    message: m.LogLines
    sealer: Sealer | None


class LogReaders:
    """The readers of the logs of a process's edges. All times are seconds on one clock.

    ``allowed``: whether logs may be read at all. ``sealer_for``: null if the edges do not seal.
    """

    def __init__(self, lines: RecentLines, *, allowed: bool, sealer_for: SealerFor | None) -> None:
        self._lines = lines
        self._allowed = allowed
        self._sealer_for = sealer_for
        self._readers: dict[str, Reader] = {}
        self._flush_at = 0.0
        self._refusals = Interval(FLUSH_INTERVAL)
        self._new_readers = TokenBucket(READER_RATE, 0.0)

    @property
    def due(self) -> float:
        """When `advance` has something to do; never (∞) without readers."""
        return self._flush_at if self._readers else math.inf

    def asked(self, request: m.LogRequest, now: float) -> list[Answer]:
        """Takes a request, and returns the answers to it: one at least, unless it is an end or refused again."""
        known = self._readers.get(request.reader)
        if request.seconds == 0:
            self._readers.pop(request.reader, None)
            return []
        if known is not None and known.request.client == request.client:
            known.request, known.until = request, now + request.seconds
            return self._answers(known, now, always=True)
        sealer, refused = None, self._refusal(now)
        if refused is None and self._sealer_for is not None:
            sealer = self._sealer_for(request)
            refused = "needs-operator-kit" if sealer is None else None
        if refused is None and not self._new_readers.take(1, now):
            refused = "too-many-readers"
        if refused is not None:
            refusal = m.LogLines(client=request.client, reader=request.reader, refused=refused)
            return [Answer(refusal, None)] if self._refusals.is_due(now) else []
        end, recent = self._lines.end, _wanted(request, self._lines.after(0, request.client))
        past = recent[len(recent) - min(request.recent, len(recent)) :]
        reader = Reader(request, now + request.seconds, end, TokenBucket(LINE_RATE, now), sealer, past)
        self._flush_at = now + FLUSH_INTERVAL if not self._readers else self._flush_at
        self._readers[request.reader] = reader
        return self._answers(reader, now, always=True)

    def _refusal(self, now: float) -> m.LogRefusal | None:
        if not self._allowed:
            return "not-allowed"
        self._drop_expired(now)
        return "too-many-readers" if len(self._readers) >= MAX_READERS else None

    def advance(self, now: float) -> list[Answer]:
        """Returns what there is to send, if that is `due`."""
        if now < self.due:
            return []
        self._flush_at = now + FLUSH_INTERVAL
        self._drop_expired(now)
        return [answer for reader in self._readers.values() for answer in self._answers(reader, now)]

    def _drop_expired(self, now: float) -> None:
        self._readers = {name: one for name, one in self._readers.items() if now < one.until}

    def _answers(self, reader: Reader, now: float, *, always: bool = False) -> list[Answer]:
        """The messages with all lines that a reader has not had; without lines, one message if ``always``."""
        request, end = reader.request, self._lines.end
        live = _wanted(request, self._lines.after(reader.next_line, request.client))
        reader.next_line = end
        sent = [line for line in live if line.text is not None and reader.bucket.take(1, now)]
        past = [line for line in reader.past if line.text is not None]
        withheld = sum(line.text is None for line in (*reader.past, *live))
        left_out = sum(line.text is not None for line in live) - len(sent)
        reader.past = []
        lines = [
            m.LogLine(time=one.time, level=one.level, text=one.text)
            for one in (*past, *sent)
            if one.text is not None
        ]
        answers: list[Answer] = []
        for start in range(0, len(lines), m.MAX_LOG_LINES) or ([0] if always or withheld or left_out else []):
            part = lines[start : start + m.MAX_LOG_LINES]
            answers.append(
                Answer(
                    m.LogLines(
                        client=request.client,
                        reader=request.reader,
                        number=reader.number,
                        lines=tuple(part),
                        recent=max(0, len(past) - start - len(part)),
                        left_out=0 if answers else left_out,
                        withheld=0 if answers else withheld,
                    ),
                    reader.sealer,
                )
            )
            reader.number += 1
        return answers


def _wanted(request: m.LogRequest, lines: list[Line]) -> list[Line]:
    least = LEVELS.index(request.level)
    return [line for line in lines if LEVELS.index(line.level) >= least]
