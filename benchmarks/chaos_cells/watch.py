"""Observes a cell's run: reads its journal, logs and messages, and notes the time of each entry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.client import Client, Endpoint

LOGS_EVERY: Final = 0.01
"""Seconds, at most, between two readings of the logs. They are also read after each new entry of the journal.

Therefore, what an edge logged before its update was stored is not seen later than the storing.
"""
TOPICS: Final = ("fl/aggregator", "fl/round/+/selected", "fl/replies/+")
"""The topics to watch.

They have small messages only, since a watch that falls behind sees phases too late.
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message, and when it arrived (``time.monotonic``)."""

    at: float
    topic: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a program's log, and when it was read (``time.monotonic``)."""

    at: float
    who: str
    text: str


@dataclass(slots=True)
class _Tail:
    """Reads the new lines of a file that grows, and that may not exist yet."""

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
    """Keeps all that `look` has read in ``journal``, ``said`` (logs) and ``heard`` (messages)."""

    run: Path
    port: int
    now: float = 0.0
    """The time of the last `look`."""
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
        """Reads the file ``log`` of the program ``who`` from now on."""
        self._logs.append((who, _Tail(log)))

    def look(self) -> None:
        """Reads all new messages, journal entries and log lines."""
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
        """Looks until ``condition`` holds; false after ``timeout`` seconds.

        A short ``pause`` finds short phases.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.look()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)

    # --- queries ------------------------------------------------------------------------------------------

    def events(self, kind: str, **wanted: Any) -> list[tuple[float, dict[str, Any]]]:
        """The events of a kind in the journal whose fields have the ``wanted`` values, with their times."""
        return [
            (at, event)
            for at, event in self.journal
            if event["event"] == kind and all(event.get(name) == value for name, value in wanted.items())
        ]

    def kept(self, number: int) -> dict[str, float]:
        """The edges whose updates of round ``number`` are stored, and since when."""
        found: dict[str, float] = {}
        for at, event in self.events("UpdateStored"):
            if event["update"]["round"] == number:
                found.setdefault(event["update"]["client"], at)
        return found

    def first(self, topic: str, since: float = 0.0, **wanted: Any) -> float | None:
        """When a message with the ``wanted`` fields first arrived on ``topic``; null if none has."""
        for one in list(self.heard):
            if one.topic == topic and one.at >= since and wanted.items() <= one.fields.items():
                return one.at
        return None

    def first_said(self, who: str, text: str, since: float = 0.0) -> float | None:
        """When a line with ``text`` was first read in a program's log; null if none was."""
        for line in self.said:
            if line.who == who and line.at >= since and text in line.text:
                return line.at
        return None

    def close(self) -> None:
        """Disconnects from the broker."""
        self._client.close()
