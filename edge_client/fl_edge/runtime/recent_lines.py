"""The last lines of this program's log, in memory, as others may read them (protocol, section 12).

In a run whose aggregator sees each update, the operator may read all lines. Otherwise (in a masked or private run,
with a policy of the edge's user, and outside any run), only lines without anything of the edge's data: those of loggers
that never see data, and notices with a text that others may read. Tracebacks are never among the lines.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fl_edge.runtime.edge import Edge
from fl_shared.protocol import messages as m
from fl_shared.system.text import one_line, shortened

MAX_LINES: Final = 1000
"""Lines that are kept, of all edges of the process together."""
WITHOUT_DATA: Final = (
    "fl_shared.mqtt",
    "fl_edge.messaging",
    "fl_edge.runtime.notices",
    "fl_edge.runtime.router",
    "fl_edge.runtime.heartbeat",
    "fl_edge.storage",
)
"""Loggers, with those below them, whose lines have nothing of an edge's data."""
_BELOW: Final = tuple(f"{name}." for name in WITHOUT_DATA)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log. ``client``: the edge that it is about; null if it is about all edges of the process.

    ``text``: null if it may reveal something about the data.
    """

    number: int
    time: str
    client: str | None
    level: m.LogLevel
    text: str | None


def level_name(number: int) -> m.LogLevel:
    """The level of a record."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


class _Kept(NamedTuple):
    """A `Line` that nobody has read yet: hardly any is ever read."""

    number: int
    created: float
    client: str | None
    level: int
    text: str | None

    def shown(self) -> Line:
        time = datetime.fromtimestamp(self.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        return Line(self.number, time, self.client, level_name(self.level), self.text)


class RecentLines(logging.Handler):
    """Keeps the last lines. ``tells_all``: whether all lines about an edge (null: about all edges) may be read now.

    Other threads log, too; `after` may be called on any.
    """

    def __init__(self, tells_all: Callable[[str | None], bool]) -> None:
        super().__init__()
        self._tells_all = tells_all
        self._lines: deque[_Kept] = deque(maxlen=MAX_LINES)
        self._numbers = itertools.count()

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record. The caller holds the handler's lock."""
        try:
            client = getattr(record, "client", None)
            text = self._text(record, client)
            text = None if text is None else shortened(one_line(text), m.MAX_LOG_TEXT)
            line = _Kept(next(self._numbers), record.created, client, record.levelno, text)
        except Exception:
            self.handleError(record)
        else:
            self._lines.append(line)

    def _text(self, record: logging.LogRecord, client: str | None) -> str | None:
        told: str | None = getattr(record, "told", None)
        message = record.getMessage()
        # What the edges may tell is asked last: it takes a look at each of them.
        if message == told or f"{record.name}.".startswith(_BELOW) or self._tells_all(client):
            return message
        return told

    @property
    def end(self) -> int:
        """The number of the line that comes next."""
        with self._locked():
            return self._lines[-1].number + 1 if self._lines else 0

    def after(self, number: int, client: str) -> list[Line]:
        """The lines from ``number`` on that are about this edge, or about all."""
        with self._locked():
            lines = list(itertools.takewhile(lambda line: line.number >= number, reversed(self._lines)))
        return [line.shown() for line in reversed(lines) if line.client in (None, client)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


@contextmanager
def recent_lines(edges: Sequence[Edge]) -> Iterator[RecentLines]:
    """Keeps what this program logs meanwhile, as others may read it about ``edges``."""
    by_client = {edge.client: edge for edge in edges}

    def tells_all(client: str | None) -> bool:
        edge = None if client is None else by_client.get(client)
        return all(one.tells_all for one in (edges if edge is None else (edge,)))

    handler = RecentLines(tells_all)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
