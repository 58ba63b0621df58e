"""The journal: every event that changed the run's state, in order, one JSON line each.

Replaying the events through ``round.step`` from the run's first state restores the state (``replay``). The first line
of a long run is a snapshot, which stands for all events before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import Event, ModelCreated, VersionReceived
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.storage.append_log import AppendLog
from fl_shared.errors import UserError
from fl_shared.system.files import read_lines

FILE_NAME: Final = "journal.jsonl"
SNAPSHOT_PREFIX: Final = b'{"snapshot":'
"""How the line of a snapshot begins."""
_JSON: Final = json.JSONEncoder(separators=(",", ":"))
_EVENTS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Event)}


class Journal:
    """Appends events to ``DIR/journal.jsonl``. See `AppendLog`.

    The disk has every event up to the newest `ModelCreated`, and with ``sync`` every event.
    """

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self._log = AppendLog(directory / FILE_NAME)
        self._sync = sync

    def append(self, event: Event) -> None:
        """Appends an event. If it raises ``OSError``, the file is unchanged."""
        line = _JSON.encode(event_fields(event))
        self._log.append(line, sync=self._sync or isinstance(event, ModelCreated | VersionReceived))

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return self._log.size

    def compact(self, end: int, snapshot: str) -> None:
        """Replaces the first ``end`` bytes by the line of a snapshot. See `AppendLog.replace_start`."""
        self._log.replace_start(end, snapshot)

    def cut(self, entries: int) -> None:
        """Removes all but the first ``entries`` lines. Raises ``OSError``."""
        self._log.cut(entries)

    def close(self) -> None:
        """Closes the file."""
        self._log.close()


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    """Made with the first event of the kind, since a program needs few of them."""
    return TypeAdapter(_EVENTS[kind])


def event_fields(event: Event) -> dict[str, Any]:
    """An event as a dictionary for JSON: its fields, and its type's name under ``event``."""
    kind = type(event).__name__
    return {"event": kind, **_adapter(kind).dump_python(event)}


def line_prefix(kind: type[Event]) -> bytes:
    """How the lines of events of a kind begin."""
    return f'{{"event":"{kind.__name__}"'.encode()


def snapshot_line(snapshot: Snapshot) -> str:
    """A snapshot as the first line of a journal, without a line end."""
    return _JSON.encode({"snapshot": snapshot.fields()})


def read_entries(directory: Path, settings: Settings) -> Iterator[Event | Snapshot]:
    """The snapshot with which the journal may begin, and the recorded events. ``settings``: those of the run.

    An incomplete last line is ignored: the process died while writing it. Raises ``UserError`` with the number of the
    line that is neither, or if the snapshot is incomplete, since that is written in one step; and ``OSError``.
    """
    path = directory / FILE_NAME
    for number, line in enumerate(read_lines(path), 1):
        is_snapshot = number == 1 and line.startswith(SNAPSHOT_PREFIX)
        if not line.endswith(b"\n"):
            if is_snapshot:
                raise UserError(f"{path}: line 1, a snapshot, is cut off: restore the file from a copy")
            return
        try:
            fields = json.loads(line)
            entry: Event | Snapshot = (
                Snapshot.from_fields(fields["snapshot"], settings)
                if is_snapshot
                else _adapter(fields.pop("event")).validate_python(fields)
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
            problem = str(error).splitlines()[0]
            kind = "a snapshot" if is_snapshot else "an event"
            raise UserError(f"{path}: line {number} is not {kind}: {problem}") from None
        yield entry
