"""What a device file says, checked: a TOML file, and CSV files that it names. Every error names file, line and key."""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_shared.errors import UserError
from fl_shared.protocol.messages import ClientId

PRESETS: Final = Path(__file__).parent / "presets"
OPTION: Final = "--heterogeneity"
MAX_BYTES: Final = 2**26
"""Of one file."""
LEAST_SECONDS: Final = 1.0
"""Between the rows of a client in a trace of availability: each may be an event."""

Rate = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Period = Annotated[float, Field(ge=1, le=1e9, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
FileName = Annotated[str, Field(pattern=r"^[^\x00]+$")]
_Row = TypeVar("_Row")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Strict):
    """A log-normal distribution: ``sigma`` is the standard deviation of the logarithm."""

    median: Rate
    sigma: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0


class Slow(_Strict):
    """A ``share`` of the devices is slower by ``factor``."""

    share: Share
    factor: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)]


class Speed(Spread):
    """Examples a second in training."""

    slow: Slow | None = None


class LinkRow(_Strict):
    """``latency``: seconds each way. ``loss``: the share of messages that are lost."""

    latency: Delay = 0.05
    loss: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = 0.0


class Daily(_Strict):
    """More devices are there around the hour ``peak`` of the virtual day, by at most ``amplitude``."""

    amplitude: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    peak: Annotated[float, Field(ge=0, lt=24, allow_inf_nan=False)] = 3.0


class Availability(_Strict):
    """Mean seconds of being there and away. ``drop``: the probability of dying in a training."""

    on: Period | None = None
    off: Period = 60.0
    daily: Daily = Daily(amplitude=0.0)
    drop: Share = 0.0


class Named(_Strict):
    """The device of one edge, as far as it differs."""

    client: ClientId
    speed: Rate | None = None
    down: Rate | None = None
    up: Rate | None = None
    latency: Delay | None = None
    drop: Share | None = None


class Traces(_Strict):
    """CSV files beside the device file, with what was measured."""

    capacity: FileName | None = None
    availability: FileName | None = None


class _File(_Strict):
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    speed: Speed
    down: Spread
    up: Spread
    link: LinkRow = LinkRow()
    availability: Availability = Availability()
    device: tuple[Named, ...] = ()
    trace: Traces = Traces()


@dataclass(frozen=True, slots=True)
class Specification:
    """A device file with its traces.

    ``capacity``: measured (speed, down, up) by client. ``presence``: by client, the rows of its trace: from which
    second on it is there (true) or away. ``sha256``: of all the files.
    """

    file: _File
    capacity: Mapping[str, tuple[float, float, float]]
    presence: Mapping[str, tuple[tuple[float, bool], ...]]
    sha256: str


def preset_names() -> list[str]:
    """Returns the presets, the simplest first."""
    return ["uniform", "silos", "gateways", "phones"]


def read_specification(name: str, clients: int | None = None) -> Specification:
    """Reads a preset, or a file of this path. Raises ``UserError``.

    ``clients``: how many edges the run has; null: whether the file names others is not checked.
    """
    if name in preset_names():
        return _read(PRESETS / f"{name}.toml", clients)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"{OPTION}: no file {name!r}; expected a file, or one of: {', '.join(preset_names())}"
        )
    return _read(path, clients)


def _read(path: Path, clients: int | None) -> Specification:
    digest = hashlib.sha256()
    text = _text(path, str(path), digest)
    try:
        file = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{OPTION}: {path}: {error}") from None
    except ValidationError as error:
        raise UserError(f"{OPTION}: {_mistake(path, text, error)}") from None
    edges = None if clients is None else {str(number) for number in range(clients)}

    def place(*location: int | str) -> str:
        return f"{path}, line {_line_of(text, location)}: {'.'.join(map(str, location))}"

    seen: set[str] = set()
    for number, row in enumerate(file.device):
        wrong = None
        if row.client in seen:
            wrong = "it is named twice, expected once"
        elif edges is not None and row.client not in edges:
            wrong = f"the run has no such edge, {_expected(edges)}"
        if wrong is not None:
            raise UserError(f"{OPTION}: {place('device', number, 'client')} = {row.client!r}: {wrong}")
        seen.add(row.client)
    for key in ("off", "daily"):
        if key in file.availability.model_fields_set and file.availability.on is None:
            raise UserError(
                f"{OPTION}: {place('availability', key)} has no effect without availability.on, expected both"
            )

    def trace(key: str, name: str | None, read: Callable[[Path, str], dict[str, _Row]]) -> dict[str, _Row]:
        if name is None:
            return {}
        named = f"{place('trace', key)} = {name!r}"
        rows = read(path.parent / name, _text(path.parent / name, named, digest))
        if edges is not None and rows.keys().isdisjoint(edges):
            raise UserError(f"{OPTION}: {named}: it has no row for an edge of the run, {_expected(edges)}")
        return rows

    capacity = trace("capacity", file.trace.capacity, _capacity)
    presence = trace("availability", file.trace.availability, _presence)
    return Specification(file, capacity, presence, digest.hexdigest())


def _expected(edges: Collection[str]) -> str:
    return f"expected one of its {len(edges)}, which are named 0, 1, 2, …"


def _text(path: Path, named: str, digest: Any) -> str:
    """Returns what a file says; an error says where it is ``named``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{OPTION}: {named}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{OPTION}: {named}: more than {MAX_BYTES} bytes, expected a smaller file")
    digest.update(hashlib.sha256(data).digest())
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{OPTION}: {named}: not UTF-8, expected text") from None


def _mistake(path: Path, text: str, error: ValidationError) -> str:
    """Says where the first mistake is, and what was expected there."""
    mistakes = error.errors(include_url=False)
    # A misspelt key is missing as well: its wrong name says more.
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    keys = [str(key) for key in first["loc"]]
    key = ".".join(keys)
    place = f"{path}, line {_line_of(text, first['loc'])}"
    if first["type"] == "extra_forbidden":
        return f"{place}: {key} is unknown; the page 'Simulation in virtual time' of the documentation has the keys"
    if first["type"] == "missing":
        return f"{place}: {key} is missing, expected a value"
    message = str(first["msg"])
    return f"{place}: {key} = {first['input']!r}: {message[0].lower()}{message[1:]}"


def _line_of(text: str, location: Sequence[int | str]) -> int:
    """Returns the line of a key; of its table, or 1, if the key is not there itself."""
    names = [part for part in location if isinstance(part, str)]
    number = next((part for part in location if isinstance(part, int)), 0)
    best, table, seen = (0, 1), [""], -1
    for at, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([\w.]+)\s*\]\]?", line):
            table = header[1].split(".")
            seen += header[1] == names[0]
            path = table
        elif key := re.match(r"\s*([\w.]+)\s*=", line):
            path = [*(part for part in table if part), *key[1].split(".")]
        else:
            continue
        if path[0] == "device" and names[0] == "device" and seen != number:
            continue
        depth = len(path) if names[: len(path)] == path else 0
        best = max(best, (depth, at if depth > best[0] else best[1]))
    return best[1]


def _rows(path: Path, columns: tuple[str, ...], text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the line and the values of each row; the first column is the client."""
    lines = csv.reader(text.splitlines())
    try:
        head = next(lines, [])
        if tuple(name.strip() for name in head) != columns:
            raise UserError(f"{OPTION}: {path}, line 1: {','.join(head)!r}, expected {','.join(columns)}")
        for row in lines:
            if not row:
                continue
            place = f"{OPTION}: {path}, line {lines.line_num}"
            if len(row) != len(columns):
                raise UserError(f"{place}: {len(row)} values, expected {len(columns)}")
            values = [value.strip() for value in row]
            if not re.fullmatch(r"0|[1-9][0-9]*", values[0]):
                raise UserError(
                    f"{place}: client = {values[0]!r}: expected 0, 1, 2, …: so are edges named here"
                )
            yield lines.line_num, values
    except csv.Error as error:
        raise UserError(f"{OPTION}: {path}, line {lines.line_num}: {error}") from None


def _number(path: Path, line: int, column: str, value: str, *, positive: bool) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not (0 < number <= 1e15 or (number == 0 and not positive)):
        least = "above 0" if positive else "from 0"
        raise UserError(
            f"{OPTION}: {path}, line {line}: {column} = {value!r}: expected a number {least} to 1e15"
        )
    return number


def _capacity(path: Path, text: str) -> dict[str, tuple[float, float, float]]:
    columns = ("client", "examples_per_second", "down", "up")
    found: dict[str, tuple[float, float, float]] = {}
    for line, (client, *values) in _rows(path, columns, text):
        speed, down, up = (
            _number(path, line, column, value, positive=True)
            for column, value in zip(columns[1:], values, strict=True)
        )
        if client in found:
            raise UserError(
                f"{OPTION}: {path}, line {line}: client = {client!r}: it is named twice, expected once"
            )
        found[client] = (speed, down, up)
    return found


def _presence(path: Path, text: str) -> dict[str, tuple[tuple[float, bool], ...]]:
    found: dict[str, list[tuple[float, bool]]] = {}
    for line, (client, second, state) in _rows(path, ("client", "second", "state"), text):
        if state not in ("on", "off"):
            raise UserError(f"{OPTION}: {path}, line {line}: state = {state!r}: expected on or off")
        at = _number(path, line, "second", second, positive=False)
        rows = found.setdefault(client, [])
        if rows and at < rows[-1][0] + LEAST_SECONDS:
            raise UserError(
                f"{OPTION}: {path}, line {line}: second = {second!r}: expected {rows[-1][0] + LEAST_SECONDS:.15g} to "
                f"1e15, at least {LEAST_SECONDS:g} s after the row before of client {client!r}"
            )
        rows.append((at, state == "on"))
    return {client: tuple(rows) for client, rows in found.items()}
