"""The run's directory: who owns it, and what lies where.

``run.json`` (settings, seed, versions), ``history.jsonl`` (one line a round), ``model.safetensors`` (the newest),
``best.safetensors``, ``checkpoints/``, ``journal.jsonl``, ``spool/``, ``tensorboard/``, and of simulations
``parts.jsonl``.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
from collections.abc import Container, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError

from fl_aggregator.round import machine
from fl_aggregator.settings import Durability, Settings
from fl_aggregator.storage import checkpoint, journal, spool
from fl_aggregator.storage.append_log import AppendLog
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.journal import Journal
from fl_aggregator.storage.spool import Spool
from fl_shared.errors import UserError
from fl_shared.system.files import write_atomically

RUN_FILE: Final = "run.json"
HISTORY_FILE: Final = "history.jsonl"
LABEL_COUNTS_FILE: Final = "parts.jsonl"
"""What `simulate` has its edges write: the labels of each one's part."""
_LOCK_FILE: Final = ".lock"


class FirstWeights(BaseModel):
    """The first weights that the user gave, as the digests of their content and of their manifest."""

    digest: str
    manifest: str


class FleetRecord(BaseModel):
    """How `simulate` runs its edges; ``broker`` is null if it starts one of its own.

    ``options``: those of `fl-edge` that it hands on, by name.
    """

    broker: str | None = None
    options: dict[str, int | str | Path] = {}


class RunRecord(BaseModel):
    """``run.json``: what a run was told, and which start of its aggregator is the newest.

    ``fleet`` is null for a run with edges of their own; ``ended`` before the run is finished and has said so.
    """

    run: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    incarnation: Annotated[int, Field(ge=1)] = 1
    started: str
    ended: str | None = None
    broker: str = ""
    prefix: str
    settings: Settings
    seed: int
    first_weights: FirstWeights | None = None
    fleet: FleetRecord | None = None
    machine: int
    """The version of the round machine, by which the journal is replayed."""
    versions: dict[str, str]


def new_record(
    settings: Settings, first_weights: FirstWeights | None = None, fleet: FleetRecord | None = None
) -> RunRecord:
    """That of a run which begins now, under a name of its own."""
    return RunRecord(
        run=secrets.token_hex(6),
        started=utc_now(),
        prefix=settings.prefix,
        settings=settings,
        seed=settings.seed,
        first_weights=first_weights,
        fleet=fleet,
        machine=machine.MACHINE_VERSION,
        versions=package_versions(),
    )


def utc_now() -> str:
    """To the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Of what a run depends on."""
    return {
        "fl-mqtt": version("fl-mqtt"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "paho-mqtt": version("paho-mqtt"),
    }


def read_run(path: Path) -> RunRecord:
    """What stands in ``path``'s ``run.json``. Raises ``UserError`` naming what is wrong with it."""
    file = path / RUN_FILE
    try:
        return RunRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise _no_run_error(path) from None
    except OSError as error:
        raise UserError(f"--resume {path}: {error.strerror}: {error.filename}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"--resume {path}: {file}: {where}: {first['msg']}") from None


def _no_run_error(path: Path) -> UserError:
    return UserError(f"--resume {path}: contains no run (no {RUN_FILE}), expected a run directory")


class RunDirectory:
    """Owns ``path`` until it is closed: a new run's (created), or one that is taken up again (``resume``).

    Raises ``UserError`` if it cannot, if a run lies there already, or if none lies there to be taken up.
    """

    def __init__(self, path: Path, durability: Durability = "process", *, resume: bool = False) -> None:
        self.path = path
        self._sync = durability == "power"
        option = "--resume" if resume else "--run-dir"
        try:
            if not resume:
                path.mkdir(parents=True, exist_ok=True)
            elif not (path / RUN_FILE).exists():
                raise _no_run_error(path)
            self._lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{option} {path}: {error.strerror}: {error.filename}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not resume and (path / RUN_FILE).exists():
                raise UserError(
                    f"--run-dir {path}: already contains a run, expected a new or empty directory; "
                    f"to resume it: --resume {path}"
                )
            self.checkpoints = Checkpoints(path, sync=self._sync)
            self.spool = Spool(path, durability)
            self.journal = Journal(path, sync=self._sync)
            self._history = AppendLog(path / HISTORY_FILE)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{option} {path}: in use by another aggregator") from None
        except OSError as error:
            os.close(self._lock)
            raise UserError(f"{option} {path}: {error.strerror}: {error.filename}") from None
        except UserError:
            (path / _LOCK_FILE).unlink(missing_ok=True)
            os.close(self._lock)
            raise

    def write_run(self, record: RunRecord) -> None:
        """Says whose directory it is; from now on the run can be taken up again."""
        write_atomically(
            self.path / RUN_FILE, record.model_dump_json(indent=2).encode() + b"\n", sync=self._sync
        )

    def filter_history(self, rounds: Container[int]) -> set[int]:
        """Takes away all lines but those of ``rounds``; says whose are there. A line that was cut off goes too."""
        kept: dict[int, bytes] = {}
        for line in (self.path / HISTORY_FILE).read_bytes().splitlines(keepends=True):
            try:
                number = json.loads(line)["round"]
            except (ValueError, KeyError, TypeError):
                continue
            if line.endswith(b"\n") and number in rounds:
                kept[number] = line
        self._history.close()
        write_atomically(self.path / HISTORY_FILE, *kept.values())
        self._history = AppendLog(self.path / HISTORY_FILE)
        return set(kept)

    def history(self) -> Iterator[dict[str, Any]]:
        """The lines of the history, of rounds that have ended and of which all is known."""
        with (self.path / HISTORY_FILE).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def append_history(self, line: dict[str, Any]) -> None:
        """A round's line. Raises ``OSError``, and then nothing of it stays."""
        self._history.append(json.dumps(line, separators=(", ", ": ")))

    def close(self) -> None:
        """Lets go of the directory; if no run began in it, nothing of ours stays in it."""
        self.journal.close()
        self._history.close()
        (self.path / _LOCK_FILE).unlink(missing_ok=True)
        os.close(self._lock)
        if not (self.path / RUN_FILE).exists():
            self._remove_files()

    def _remove_files(self) -> None:
        for name in (HISTORY_FILE, journal.FILE_NAME):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / checkpoint.DIRECTORY, self.path / spool.DIRECTORY, self.path):
            with suppress(OSError):  # it holds something, which then is not ours
                folder.rmdir()


def new_run_path(task: str, root: Path = Path("runs")) -> Path:
    """A directory for a new run that nobody has yet: ``runs/<task>-<time>``, local time to the second."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = root / f"{task}-{stamp}"
    return path if not path.exists() else root / f"{task}-{stamp}-{secrets.token_hex(2)}"
