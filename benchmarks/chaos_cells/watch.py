"""What a cell sees of its run: the journal, the programs' own words, and the wire, each with the time it was seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.client import Client, Endpoint

LOGS_EVERY: Final = 0.01
"""Seconds; the journal is read at every look, and the logs after it whenever it has something new.

So what an edge said before its update was kept is never seen later than that.
"""
TOPICS: Final = ("fl/aggregator", "fl/round/+/selected", "fl/replies/+")
"""Small messages only: a watch that falls behind sees phases that are over."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message. Times are of ``time.monotonic``."""

    at: float
    topic: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a program's log."""

    at: float
    who: str
    text: str


@dataclass(slots=True)
class _Tail:
    """A file that grows; it need not be there yet."""

    path: Path
    _offset: int = 0
    _rest: bytes = b""

    def new_lines(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return lines


@dataclass(slots=True)
class Watch:
    """``look`` reads what is new; what was seen stays in ``journal``, ``said`` and ``heard``."""

    run: Path
    port: int
    now: float = 0.0
    """When it last looked."""
    journal: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    _logs: list[tuple[str, _Tail]] = field(default_factory=list)
    _logs_read: float = 0.0
    _journal: _Tail = field(init=False)
    _client: Client = field(init=False)

    def __post_init__(self) -> None:
        self._journal = _Tail(self.run / "journal.jsonl")
        self._client = Client(Endpoint(self.port), *TOPICS, reconnect=True)

    def follow(self, who: str, log: Path) -> None:
        self._logs.append((who, _Tail(log)))

    def look(self) -> None:
        now = self.now = time.monotonic()
        for one in self._client.take_all():
            if one.payload:
                self.heard.append(Heard(one.at, one.topic, json.loads(one.payload)))
        new = [(now, json.loads(line)) for line in self._journal.new_lines()]
        self.journal += new
        if new or now - self._logs_read >= LOGS_EVERY:
            self._logs_read = now
            for who, tail in self._logs:
                self.said += [Said(now, who, line.decode(errors="replace")) for line in tail.new_lines()]

    def until(self, condition: Callable[[], bool], timeout: float, pause: float = 0.001) -> bool:
        """Whether it became true in time. A short ``pause`` is what makes a short phase be met."""
        deadline = time.monotonic() + timeout
        while True:
            self.look()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)

    # --- what is asked of it ------------------------------------------------------------------------------

    def events(self, kind: str, **wanted: Any) -> list[tuple[float, dict[str, Any]]]:
        """Journalled events of a kind whose fields have these values."""
        return [
            (at, event)
            for at, event in self.journal
            if event["event"] == kind and all(event.get(name) == value for name, value in wanted.items())
        ]

    def kept(self, number: int) -> dict[str, float]:
        """Who has an update in the round, and since when."""
        found: dict[str, float] = {}
        for at, event in self.events("UpdateStored"):
            if event["update"]["round"] == number:
                found.setdefault(event["update"]["client"], at)
        return found

    def first(self, topic: str, since: float = 0.0, **wanted: Any) -> float | None:
        """When a message was first heard on a topic."""
        for one in list(self.heard):
            if one.topic == topic and one.at >= since and wanted.items() <= one.fields.items():
                return one.at
        return None

    def first_said(self, who: str, text: str, since: float = 0.0) -> float | None:
        for line in self.said:
            if line.who == who and line.at >= since and text in line.text:
                return line.at
        return None

    def close(self) -> None:
        self._client.close()
