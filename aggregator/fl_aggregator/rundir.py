"""The run's directory: who owns it, and what lies where.

``run.json`` (settings, seed, versions), ``history.jsonl`` (one line a round), ``model.safetensors`` (the newest),
``best.safetensors``, ``checkpoints/``, ``journal.jsonl``, ``spool/``.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fl_aggregator import checkpoint, journal, spool
from fl_aggregator.checkpoint import Checkpoints, write_atomically
from fl_aggregator.journal import Journal
from fl_aggregator.settings import Settings
from fl_aggregator.spool import Durability, Spool
from fl_shared.errors import UserError

RUN: Final = "run.json"
HISTORY: Final = "history.jsonl"
_LOCK: Final = ".lock"


class RunDirectory:
    """Owns ``path`` (created) until it is closed. Raises ``UserError`` if it cannot, or if a run lies there."""

    def __init__(self, path: Path, durability: Durability = "process") -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"--run-dir {path}: {error.strerror}: {error.filename}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (path / RUN).exists():
                raise UserError(
                    f"--run-dir {path}: holds a run already, expected a new or an empty directory"
                )
            self.checkpoints = Checkpoints(path)
            self.spool = Spool(path, durability)
            self.journal = Journal(path)
            self._history = (path / HISTORY).open("ab", buffering=0)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"--run-dir {path}: another aggregator is using it") from None
        except OSError as error:
            os.close(self._lock)
            raise UserError(f"--run-dir {path}: {error.strerror}: {error.filename}") from None
        except UserError:
            os.close(self._lock)
            raise

    def write_run(self, run: str, settings: Settings, broker: str, **more: Any) -> None:
        fields = {
            "run": run,
            "epoch": 1,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "broker": broker,
            "settings": settings.model_dump(mode="json"),
            "seed": settings.seed,
            "versions": {
                "fl-mqtt": version("fl-mqtt"),
                "python": platform.python_version(),
                "numpy": version("numpy"),
                "paho-mqtt": version("paho-mqtt"),
            },
            **more,
        }
        write_atomically(self.path / RUN, json.dumps(fields, indent=2).encode() + b"\n")

    def append_history(self, line: dict[str, Any]) -> None:
        self._history.write(json.dumps(line, separators=(", ", ": ")).encode() + b"\n")

    def close(self) -> None:
        """Lets go of the directory; if no run began in it, nothing of ours stays in it."""
        self.journal.close()
        self._history.close()
        (self.path / _LOCK).unlink(missing_ok=True)
        os.close(self._lock)
        if not (self.path / RUN).exists():
            self._take_away()

    def _take_away(self) -> None:
        for name in (HISTORY, journal.FILE):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / checkpoint.DIRECTORY, self.path / spool.DIRECTORY, self.path):
            with suppress(OSError):  # it holds something, which then is not ours
                folder.rmdir()


def fresh(task: str, root: Path = Path("runs")) -> Path:
    """A directory for a new run that nobody has yet: ``runs/<task>-<time>``, local time to the second."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = root / f"{task}-{stamp}"
    return path if not path.exists() else root / f"{task}-{stamp}-{secrets.token_hex(2)}"
