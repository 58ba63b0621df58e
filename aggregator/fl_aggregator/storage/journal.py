"""The journal: every event that changed the state, one JSON line each, in their order.

Replayed through ``round.step`` from the run's first state, they give the state back (``replay``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from fl_aggregator.round.events import Event
from fl_aggregator.storage.append_log import LineFile
from fl_shared.errors import UserError

FILE: Final = "journal.jsonl"
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}


class Journal:
    """Appends events to ``DIR/journal.jsonl``, as `LineFile` says."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self._lines = LineFile(directory / FILE, sync=sync)

    def append(self, event: Event) -> None:
        """Raises ``OSError``, and then nothing of the line stays."""
        self._lines.append(json.dumps(to_fields(event), separators=(",", ":")))

    def close(self) -> None:
        self._lines.close()


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
