"""The journal: every event that changed the state, one JSON line each, in their order.

Replayed through ``round.step`` from the run's first state, they give the state back (``replay``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from fl_aggregator.effects import Effect
from fl_aggregator.events import Event
from fl_aggregator.phases import Run
from fl_aggregator.round import step
from fl_shared.errors import UserError

FILE: Final = "journal.jsonl"
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}


class Journal:
    """Appends events to ``DIR/journal.jsonl``; each line is handed to the operating system at once.

    ``sync``: and to the disk. A last line that was cut off is taken away first.
    """

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self._sync = sync
        self._file: IO[bytes] = (directory / FILE).open("ab", buffering=0)
        self._whole = _whole_lines(directory / FILE)
        self._file.truncate(self._whole)

    def append(self, event: Event) -> None:
        """Raises ``OSError``, and then nothing of the line stays."""
        line = json.dumps(to_fields(event), separators=(",", ":")).encode() + b"\n"
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._whole)
            raise
        self._whole += len(line)

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def to_fields(event: Event) -> dict[str, Any]:
    kind = type(event).__name__
    return {"event": kind, **_EVENTS[kind].dump_python(event)}


def read(directory: Path) -> Iterator[Event]:
    """The recorded events. A last line that was cut off (the machine died writing it) does not count.

    Raises ``UserError`` naming the line that is no event.
    """
    with (directory / FILE).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                fields = json.loads(line)
                event: Event = _EVENTS[fields.pop("event")].validate_python(fields)
            except (ValueError, KeyError, AttributeError, ValidationError) as error:
                problem = str(error).splitlines()[0]
                raise UserError(f"{directory / FILE}: line {number} is not an event: {problem}") from None
            yield event


def replay(state: Run, directory: Path) -> Iterator[tuple[Event, Run, tuple[Effect, ...]]]:
    """Each recorded event with the state after it and the effects that it had; none of them is performed."""
    for event in read(directory):
        state, effects = step(state, event)
        yield event, state, effects
