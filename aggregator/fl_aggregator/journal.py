"""The journal: every event that changed the state, one JSON line each, in their order.

Replayed through ``round.step`` from the run's first state, they give the state back (``replay``). The first line
of a start of the aggregator says which epoch it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final, get_args

from pydantic import TypeAdapter

from fl_aggregator.events import Event
from fl_aggregator.phases import Run
from fl_aggregator.round import step

FILE: Final = "journal.jsonl"
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}


class Journal:
    """Appends events to ``DIR/journal.jsonl``; each line is handed to the operating system at once."""

    def __init__(self, directory: Path) -> None:
        self._file: IO[bytes] = (directory / FILE).open("ab", buffering=0)

    def append(self, event: Event) -> None:
        self._file.write(json.dumps(to_fields(event), separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def to_fields(event: Event) -> dict[str, Any]:
    return {"event": type(event).__name__, **asdict(event)}


def read(directory: Path) -> Iterator[Event]:
    """The recorded events. A last line that was cut off (the machine died writing it) does not count."""
    with (directory / FILE).open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            fields = json.loads(line)
            event: Event = _EVENTS[fields.pop("event")].validate_python(fields)
            yield event


def replay(state: Run, directory: Path) -> Run:
    """The state after all that was recorded. Effects are not performed: they were."""
    for event in read(directory):
        state, _ = step(state, event)
    return state
