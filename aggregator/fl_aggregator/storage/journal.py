"""The journal: every event that changed the run's state, in order, one JSON line each.

Replaying the events through ``round.step`` from the run's first state restores the state (``replay``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from fl_aggregator.round.events import Event, ModelCreated
from fl_aggregator.storage.append_log import AppendLog
from fl_shared.errors import UserError
from fl_shared.system.files import read_lines

FILE_NAME: Final = "journal.jsonl"
_EVENT_ADAPTERS: Final[dict[str, TypeAdapter[Any]]] = {
    kind.__name__: TypeAdapter(kind) for kind in get_args(Event)
}


class Journal:
    """Appends events to ``DIR/journal.jsonl``. See `AppendLog`.

    The disk has every event up to the newest `ModelCreated`, and with ``sync`` every event.
    """

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self._log = AppendLog(directory / FILE_NAME)
        self._sync = sync

    def append(self, event: Event) -> None:
        """Appends an event. If it raises ``OSError``, the file is unchanged."""
        line = json.dumps(event_fields(event), separators=(",", ":"))
        self._log.append(line, sync=self._sync or isinstance(event, ModelCreated))

    def cut(self, events: int) -> None:
        """Removes all but the first ``events`` events. Raises ``OSError``."""
        self._log.cut(events)

    def close(self) -> None:
        """Closes the file."""
        self._log.close()


def event_fields(event: Event) -> dict[str, Any]:
    """An event as a dictionary for JSON: its fields, and its type's name under ``event``."""
    kind = type(event).__name__
    return {"event": kind, **_EVENT_ADAPTERS[kind].dump_python(event)}


def read_events(directory: Path) -> Iterator[Event]:
    """The recorded events. An incomplete last line is ignored: the process died while writing it.

    Raises ``UserError`` with the number of the line that is not an event, and ``OSError``.
    """
    for number, line in enumerate(read_lines(directory / FILE_NAME), 1):
        if not line.endswith(b"\n"):
            return
        try:
            fields = json.loads(line)
            event: Event = _EVENT_ADAPTERS[fields.pop("event")].validate_python(fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
            problem = str(error).splitlines()[0]
            raise UserError(f"{directory / FILE_NAME}: line {number} is not an event: {problem}") from None
        yield event
