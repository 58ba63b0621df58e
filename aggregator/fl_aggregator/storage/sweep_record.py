"""``sweep.json``: the runs of a sweep, each in a subdirectory of the sweep's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from fl_shared.errors import UserError
from fl_shared.system.files import read_regular, write_atomically
from fl_shared.system.validation import first_error

SWEEP_FILE: Final = "sweep.json"
MAX_RUNS: Final = 1000
"""Runs of a sweep."""
_MAX_BYTES: Final = 2**24


class SweptRun(BaseModel):
    """A run of a sweep. ``name``: of its subdirectory. ``setting``: the values that were swept, without the seed.

    ``arguments``: of ``simulate``, without those that say where the run is written and what is shown.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]{0,199}$")]
    setting: dict[str, str]
    seed: int
    arguments: list[str]

    @property
    def setting_text(self) -> str:
        """The setting for people: ``lr=0.01, momentum=0``; empty if only seeds were swept."""
        return ", ".join(f"{name}={value}" for name, value in self.setting.items())


class SweepRecord(BaseModel):
    """The content of ``sweep.json``."""

    runs: Annotated[list[SweptRun], Field(min_length=1, max_length=MAX_RUNS)]

    @property
    def settings(self) -> dict[str, list[SweptRun]]:
        """The runs of each setting, by its text, in their order."""
        found: dict[str, list[SweptRun]] = {}
        for run in self.runs:
            found.setdefault(run.setting_text, []).append(run)
        return found

    def write(self, directory: Path) -> None:
        """Writes the file. Raises ``OSError``."""
        write_atomically(directory / SWEEP_FILE, self.model_dump_json(indent=1).encode() + b"\n")


def is_sweep(directory: Path) -> bool:
    """Whether a directory is one of a sweep."""
    return (directory / SWEEP_FILE).is_file()


def read_sweep_record(directory: Path) -> SweepRecord:
    """Reads ``sweep.json``. Raises ``UserError`` if it cannot be read."""
    file = directory / SWEEP_FILE
    try:
        return SweepRecord.model_validate_json(read_regular(file, _MAX_BYTES))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from None
    except ValidationError as error:
        raise UserError(f"{file}: {first_error(error, 'the file')}") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
