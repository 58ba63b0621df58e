"""The run directory: its lock, and its files.

``run.json`` (settings, seed, versions), ``history.jsonl`` (one line for each round), ``model.safetensors``
(the newest version), ``best.safetensors``, ``checkpoints/``, ``journal.jsonl``, ``spool/``, ``tensorboard/``,
and in a simulation ``parts.jsonl``.
"""

from __future__ import annotations

import json
import platform
import secrets
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from fl_aggregator.configuration.masking import masked_sums
from fl_aggregator.configuration.settings import Durability, Settings
from fl_aggregator.round import machine
from fl_aggregator.storage import checkpoint, journal, spool
from fl_aggregator.storage.append_log import AppendLog
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.disk_space import raising_disk_full
from fl_aggregator.storage.journal import Journal
from fl_aggregator.storage.spool import Spool
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import KEEP_LOCAL
from fl_shared.system.file_lock import FileLock
from fl_shared.system.files import delete_temporary_files, read_lines, read_regular, write_atomically
from fl_shared.system.own_directory import check_directory, check_tree
from fl_shared.system.validation import first_error

RUN_FILE: Final = "run.json"
HISTORY_FILE: Final = "history.jsonl"
LABEL_COUNTS_FILE: Final = "parts.jsonl"
"""Written by the edges of a simulation: how often each label occurs in each edge's partition."""
FLEET_LOG: Final = "fleet.log"
"""The output of the edges of a simulation."""
LOCK_FILE: Final = ".lock"
MAX_RUN_FILE: Final = 2**24
"""Bytes of the largest ``run.json``, which may name all edges."""
_UTC_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"


class FirstWeights(BaseModel):
    """The first weights that the user gave, as the digests of their content and of their manifest."""

    digest: m.Digest
    manifest: m.Digest


class PlainWeightsRecord(BaseModel):
    """The file of initial weights whose roles the edges know; it is read again if the run is resumed before round 1."""

    path: Path
    sha256: m.Digest


class AttackRecord(BaseModel):
    """How some edges of a simulation attack it, as the option says it, and in words; ``edges``: their ids."""

    specification: str
    summary: str
    edges: tuple[str, ...] = ()


class VirtualTimeRecord(BaseModel):
    """The devices of a run in virtual time: a preset or a file, and the SHA-256 of what it says."""

    heterogeneity: str
    sha256: str


class FleetRecord(BaseModel):
    """How ``simulate`` runs its edges. ``broker`` is null if the simulation starts its own broker, or has none.

    ``options``: the options of ``fl-edge`` that ``simulate`` passes on, by name. ``attack`` is null if no edge attacks,
    ``virtual`` if the run is not in virtual time. A path is absolute, since a resume may be started elsewhere.
    """

    broker: str | None = None
    options: dict[Literal["data", "device", "workers", "dp_sgd", "dp_local"], int | str | Path] = {}
    attack: AttackRecord | None = None
    virtual: VirtualTimeRecord | None = None

    @field_validator("options")
    @classmethod
    def _absolute(cls, options: dict[Any, Any]) -> dict[Any, Any]:
        return {
            name: str(Path(value).absolute()) if name == "data" else value for name, value in options.items()
        }


class RunRecord(BaseModel):
    """The content of ``run.json``: the run's settings, and its newest incarnation.

    ``fleet`` is null unless the run is a simulation. ``ended`` is null until the run has ended and has
    published its last status.
    """

    run: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    incarnation: Annotated[int, Field(ge=1)] = 1
    started: Annotated[str, Field(pattern=_UTC_TIME)]
    ended: Annotated[str, Field(pattern=_UTC_TIME)] | None = None
    broker: Annotated[str, Field(max_length=1024)] = ""
    prefix: str
    settings: Settings
    seed: int
    first_weights: FirstWeights | None = None
    plain_weights: PlainWeightsRecord | None = None
    fleet: FleetRecord | None = None
    certified: bool = False
    """Whether the aggregator has had a kit in all incarnations, so that edges' keys of masked rounds are certified."""
    strategy_parts: dict[str, Any] = {}
    """The parts of the run's strategy, with all their fields."""
    machine: int
    """The version of the round machine that wrote the journal, and that must replay it."""
    versions: dict[str, str]

    @property
    def attack(self) -> str | None:
        """Who attacks the run and how, for people; null in a run without simulated attackers."""
        return None if self.fleet is None or self.fleet.attack is None else self.fleet.attack.summary

    @property
    def masked(self) -> m.MaskedSums | None:
        """What can be seen of the updates if edges mask them; null if each one can."""
        return masked_sums(self.settings, certified=self.certified)

    @property
    def model_metadata(self) -> dict[str, str]:
        """What the files of models say about the run."""
        attack = {} if self.attack is None else {"attack": self.attack}
        local = {KEEP_LOCAL: self.settings.local_patterns} if self.settings.keep_local else {}
        parts = {"strategy": json.dumps(self.strategy_parts)} if self.strategy_parts else {}
        return {"task": self.settings.task, "settings": self.settings.digest, **parts, **attack, **local}


def new_record(
    settings: Settings, first_weights: FirstWeights | None = None, fleet: FleetRecord | None = None
) -> RunRecord:
    """The record of a run that begins now, with a new random name."""
    return RunRecord(
        run=secrets.token_hex(6),
        started=utc_now(),
        prefix=settings.prefix,
        settings=settings,
        seed=settings.seed,
        first_weights=first_weights,
        fleet=fleet,
        machine=machine.MACHINE_VERSION,
        versions=dict(package_versions()),
    )


def utc_now() -> str:
    """The current time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def package_versions() -> Mapping[str, str]:
    """The versions of Python and of the packages that a run's results may depend on. They are read once."""
    return {
        "fl-mqtt": version("fl-mqtt"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "paho-mqtt": version("paho-mqtt"),
    }


def read_run(path: Path, option: str = "--resume") -> RunRecord:
    """The record in ``path/run.json``. Raises ``UserError`` with what is wrong with the file.

    ``option``: which one has named ``path``.
    """
    file = path / RUN_FILE
    try:
        return RunRecord.model_validate_json(read_regular(file, MAX_RUN_FILE))
    except FileNotFoundError:
        raise _no_run_error(path, option) from None
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}: {error.filename}") from None
    except ValidationError as error:
        raise UserError(f"{option} {path}: {file}: {first_error(error, 'the file')}") from None


def _no_run_error(path: Path, option: str) -> UserError:
    return UserError(f"{option} {path}: contains no run (no {RUN_FILE}), expected a run directory")


class RunDirectory:
    """Holds the lock of the directory ``path`` until it is closed, and opens the run's files in it.

    Creates the directory for a new run; with ``resume``, opens the directory of a run that continues, in which
    nothing is changed before `begin_writing`. Raises ``UserError`` if the directory cannot be used, if somebody
    else may have filled it (`check_tree`), if it belongs to another aggregator, if it contains a run already, or
    with ``resume`` if it contains none.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = "process",
        *,
        resume: bool = False,
        checkpoints: int = checkpoint.MAX_CHECKPOINTS,
    ) -> None:
        """``checkpoints``: how many versions are kept, at least."""
        self.path = path
        self._durability: Durability = durability
        self._sync = durability == "power"
        self._writes = False
        self.checkpoints = Checkpoints(path, sync=durability != "memory", kept=checkpoints)
        option = "--resume" if resume else "--run-dir"
        try:
            if resume and not (path / RUN_FILE).exists():
                raise _no_run_error(path, option)
            self._created = [folder for folder in (path, *path.parents) if not folder.exists()]
            if self._created:
                path.mkdir(parents=True)
            else:
                check_directory(path)
            self._lock = FileLock(path / LOCK_FILE, mode=0o644)
        except BlockingIOError:
            raise UserError(f"{option} {path}: in use by another aggregator") from None
        except OSError as error:
            raise UserError(f"{option} {path}: {error.strerror}: {error.filename}") from None
        try:
            if not resume and (path / RUN_FILE).exists():
                raise UserError(
                    f"--run-dir {path}: already contains a run, expected a new or empty directory; "
                    f"to resume it: --resume {path}"
                )
            if not self._created:
                check_tree(path)
            if not resume:
                self.begin_writing()
        except OSError as error:
            self._lock.release(delete=True)
            raise UserError(f"{option} {path}: {error.strerror}: {error.filename}") from None
        except UserError:
            self._lock.release(delete=True)
            raise

    def begin_writing(self) -> None:
        """Opens the run's files for writing, when everything in them has been read and found valid.

        May be called again. Raises ``OSError``.
        """
        if self._writes:
            return
        delete_temporary_files(self.path)
        self.checkpoints.begin_writing()
        self.spool = Spool(self.path, self._durability)
        self.journal = Journal(self.path, sync=self._sync)
        self._history = AppendLog(self.path / HISTORY_FILE)
        self._writes = True

    def make_private(self) -> None:
        """Lets only its owner into the directory: what is in it is not what a private run tells the world."""
        self.path.chmod(0o700)

    def write_run(self, record: RunRecord) -> None:
        """Writes ``run.json``. From then on the run can be resumed. Raises ``OSError``."""
        write_atomically(
            self.path / RUN_FILE, record.model_dump_json(indent=2).encode() + b"\n", sync=self._sync
        )

    def filter_history(self, last: int, without: Container[int]) -> set[int]:
        """Removes incomplete lines of the history, and all lines but those of the rounds 1 to ``last``.

        Also removes the lines of the rounds ``without``. Returns the rounds whose lines remain.
        """
        lines: dict[int, bytes] = {}
        for line in read_lines(self.path / HISTORY_FILE):
            try:
                number = json.loads(line)["round"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if (
                line.endswith(b"\n")
                and isinstance(number, int)
                and 1 <= number <= last
                and number not in without
            ):
                lines[number] = line
        self._history.close()
        write_atomically(self.path / HISTORY_FILE, *lines.values())
        self._history = AppendLog(self.path / HISTORY_FILE)
        return set(lines)

    def history(self) -> Iterator[dict[str, Any]]:
        """The lines of the history, one for each round that has ended and whose record is complete."""
        for line in read_lines(self.path / HISTORY_FILE):
            yield json.loads(line)

    def append_history(self, line: dict[str, Any]) -> None:
        """Appends the line of a round to the history. If it raises ``OSError``, the file is unchanged."""
        self._history.append(json.dumps(line, separators=(", ", ": ")))

    def compact_journal(self, end: int, snapshot: str) -> None:
        """Replaces the first ``end`` bytes of the journal by the line of a snapshot. See `AppendLog.replace_start`.

        First, all lines of the history are written to the disk: the journal can no longer replace them.
        """
        with raising_disk_full(0, self.path):
            self._history.sync()
        self.journal.compact(end, snapshot)

    def close(self) -> None:
        """Closes the files and releases the lock. If no run began, removes what this object created."""
        if self._writes:
            self.journal.close()
            self._history.close()
        if (self.path / RUN_FILE).exists():
            self._lock.release(delete=True)
            return
        self._remove_files()
        self._lock.release(delete=True)
        with suppress(OSError):  # one is not empty, so it contains files that we did not create
            for folder in self._created:
                folder.rmdir()

    def _remove_files(self) -> None:
        for name in (HISTORY_FILE, journal.FILE_NAME):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / checkpoint.DIRECTORY, self.path / spool.DIRECTORY):
            with suppress(OSError):  # it is not empty, so it contains files that we did not create
                folder.rmdir()


def new_run_path(task: str, root: Path = Path("runs")) -> Path:
    """A path for a new run that does not exist yet: ``runs/<task>-<time>``, in local time to the second.

    A dot is in place of the colon of ``module:Class``, after which scp and Docker expect another path.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{task.replace(':', '.')}-{stamp}"
    path = root / name
    return path if not path.exists() else root / f"{name}-{secrets.token_hex(2)}"
