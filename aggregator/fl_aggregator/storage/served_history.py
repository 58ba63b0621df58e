"""``served.jsonl``: which versions of a model have been served and why, and what the looks at them have found.

A line is on the disk before what it says takes effect. ``served/`` has the files of the versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fl_aggregator.storage.append_log import AppendLog
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.system.files import open_regular, read_regular, sync_directory, write_atomically
from fl_shared.system.validation import first_error

HISTORY_FILE: Final = "served.jsonl"
DIRECTORY: Final = "served"
MAX_HISTORY: Final = 2**26
"""Bytes of the file: with a look every minute, those of some months."""


Outcome = Literal["good", "kept", "replaced", "failed"]
"""The model is as good as asked; it is not, but stays; a candidate takes its place; it could not be measured."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    at: datetime
    version: Annotated[int, Field(ge=1)]


class Served(_Line):
    """From now on, this version is served. ``sha256``: of its file. ``why``: for people."""

    event: Literal["served"] = "served"
    sha256: m.Digest
    why: Literal["first", "better", "rollback"]
    detail: str = ""


class LookedAt(_Line):
    """A look at the served version has ended. ``value``: of ``metric``, on ``edges``; null if it was not measured."""

    event: Literal["look"] = "look"
    metric: str
    value: float | None
    edges: int
    outcome: Outcome
    detail: str = ""


Line = Annotated[Served | LookedAt, Field(discriminator="event")]
_LINE: Final[TypeAdapter[Served | LookedAt]] = TypeAdapter(Line)


class ServedHistory:
    """The history in the run directory ``directory``. Several processes may add to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / HISTORY_FILE

    @property
    def size(self) -> int:
        """Bytes of the file: others if somebody has added to it."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def lines(self) -> list[Served | LookedAt]:
        """Returns all lines in their order; a last one that is incomplete was not written. Raises ``UserError``."""
        try:
            data = read_regular(self.path, MAX_HISTORY)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None
        found = []
        for number, text in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                found.append(_LINE.validate_json(text))
            except ValidationError as error:
                raise UserError(f"{self.path}: line {number}: {first_error(error, 'the line')}") from None
        return found

    def versions(self) -> list[Served]:
        """Returns what has been served, in this order; the last one is served now."""
        return [line for line in self.lines() if isinstance(line, Served)]

    def model_path(self, version: int) -> Path:
        """The file of a version."""
        return self._directory / DIRECTORY / f"version-{version:04d}.safetensors"

    def checked_model(self, served: Served) -> Path:
        """Returns the file of a served version. Raises ``UserError`` if it is missing, or another one."""
        path = self.model_path(served.version)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: version {served.version} cannot be served") from None
        if found != served.sha256:
            raise UserError(
                f"{path}: has changed since it was served first: expected the SHA-256 {served.sha256}"
            )
        return path

    def serve(self, model: Path, why: Literal["first", "better"], detail: str = "") -> Served:
        """Adds a new version, with a copy of the file ``model``. Raises ``OSError``."""
        version = max((line.version for line in self.versions()), default=0) + 1
        data = model.read_bytes()
        path = self.model_path(version)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data, sync=True)
        sync_directory(path.parent)
        sha256 = hashlib.sha256(data).hexdigest()
        line = Served(at=now(), version=version, sha256=sha256, why=why, detail=detail)
        self.add(line)
        return line

    def roll_back(self, version: int | None) -> Served:
        """Serves an earlier version again: the one that was served before the present one, or ``version``.

        Raises ``UserError`` if there is none, or its file is damaged, and ``OSError``.
        """
        served = self.versions()
        if not served:
            raise UserError(
                f"--rollback: {self.path} does not exist: no version has been served from this directory"
            )
        present = served[-1].version
        known = {line.version: line for line in served}
        if version is None:
            version = next((line.version for line in reversed(served) if line.version != present), None)
            if version is None:
                raise UserError(f"--rollback: version {present} is the only one that has been served")
        if version not in known:
            names = ", ".join(map(str, sorted(known)))
            raise UserError(f"--rollback {version}: has not been served, expected one of {names}")
        if version == present:
            raise UserError(f"--rollback {version}: is served already")
        self.checked_model(known[version])
        line = Served(
            at=now(), version=version, sha256=known[version].sha256, why="rollback", detail=f"from {present}"
        )
        self.add(line)
        return line

    def add(self, line: Served | LookedAt) -> None:
        """Appends a line; when it returns, it is on the disk. Raises ``OSError``."""
        with os.fdopen(open_regular(self.path, os.O_RDWR | os.O_CREAT), "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with closing(AppendLog(self.path)) as log:
                log.append(line.model_dump_json())
                log.sync()


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
