"""The state directory of an edge: its device name, and a lock that one process holds at a time."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final, Self

from fl_shared.errors import UserError
from fl_shared.system.file_lock import FileLock
from fl_shared.system.files import delete_temporary_files, read_regular, write_atomically
from fl_shared.system.own_directory import check_directory, check_tree

_OF_A_RUN: Final = "run.json"
"""Only the directory of an aggregator's run has this file."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class StateDir:
    """An edge's own directory, created if necessary (mode 0700), and locked until `close`.

    The end of the process also ends the lock. ``device`` is the random name that distinguishes this device
    from another one with the same id; it is the same at each start.
    """

    def __init__(self, path: Path, lock: FileLock, device: str) -> None:
        self.path = path
        self.device = device
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, sync: bool = True) -> Self:
        """Opens and locks the directory. ``sync``: a new name of the device is on the disk when it returns.

        Raises ``UserError`` if another process holds it, if it cannot be written to, or if it belongs to a run of the
        aggregator.
        """
        if (path / _OF_A_RUN).exists():
            raise UserError(
                f"state directory {path}: is the directory of a run (it has a {_OF_A_RUN}); expected a directory "
                "of the edge's own"
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_directory(path)
            lock = FileLock(path / "lock")
        except BlockingIOError:
            raise UserError(_in_use(path)) from None
        except OSError as error:
            raise UserError(f"state directory {path}: cannot be used: {error.strerror}") from None
        try:
            check_tree(path)
            delete_temporary_files(path)
            lock.write(f"{os.getpid()}\n")
            device = _device(path, sync=sync)
        except OSError as error:
            lock.release()
            file = "" if error.filename in (None, str(path)) else f"{error.filename}: "
            raise UserError(f"state directory {path}: {file}{error.strerror}") from None
        except UserError:
            lock.release()
            raise
        return cls(path, lock, device)

    def close(self) -> None:
        """Releases the lock, so that another process can open the directory."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_use(path: Path) -> str:
    # The process id is for the message only: the kernel keeps the lock, and ends it with the process.
    try:
        pid = read_regular(path / "lock", 20).decode("ascii", errors="replace").strip()
    except OSError:
        pid = ""
    owner = f"process {pid}" if pid.isdigit() else "another process"
    return f"state directory {path}: in use by {owner}; expected a directory of its own for each edge"


def _device(path: Path, *, sync: bool) -> str:
    file = path / "device"
    name = ""
    with contextlib.suppress(FileNotFoundError):
        name = read_regular(file, 100).decode("ascii", errors="replace").strip()
    if not name:  # it is empty if it was not synced, and the machine has lost power since
        name = secrets.token_hex(16)
        write_atomically(file, f"{name}\n".encode(), sync=sync)
    if not _TOKEN.fullmatch(name):
        raise UserError(
            f"{file}: {name[:40]!r} is not a device token; delete the file to become another device"
        )
    return name
