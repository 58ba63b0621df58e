"""Files that are complete or absent, even if the program crashes while it writes them; and secret files."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import IO, Final

LOG: Final = logging.getLogger(__name__)


def read_at_most(path: Path, max_bytes: int) -> tuple[bytes, int]:
    """The first ``max_bytes`` bytes of a file (or fewer, if it is shorter), and its mode. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(max_bytes), os.fstat(file.fileno()).st_mode


def warn_if_others_may_read(description: str, path: Path, mode: int) -> None:
    """Logs a warning if ``mode`` lets other users read a secret file; ``description`` names the secret."""
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        LOG.warning(
            "%s %s: other users can read it (mode %03o); run: chmod 600 %s",
            description,
            path,
            stat.S_IMODE(mode),
            path,
        )


def write_all(file: IO[bytes], *buffers: bytes | memoryview) -> None:
    """Writes all pieces, one after the other, to an unbuffered file, whose ``write`` may take less."""
    for buffer in buffers:
        unwritten = memoryview(buffer)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]


def write_atomically(
    path: Path, *buffers: bytes | memoryview, sync: bool = False, private: bool = False
) -> None:
    """Writes a file beside ``path`` and renames it: ``path`` has its old content or all of ``buffers``.

    ``sync``: on return, the content is on the disk, not only in the page cache. ``private``: only the owner
    may read the file, even while it is written (mode 0600). Raises ``OSError``.
    """
    temporary = temporary_path(path)
    try:
        if private:
            temporary.unlink(missing_ok=True)  # one left by a crash may be readable for others
            temporary.touch(mode=0o600, exist_ok=False)
        with temporary.open("wb", buffering=0) as file:
            write_all(file, *buffers)
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` by ``content``, synced and with mode 0600, or leaves it. Raises ``OSError``."""
    write_atomically(path, content, sync=True, private=True)


def temporary_path(path: Path) -> Path:
    """Where the content of ``path`` is written first; a crash leaves this file behind."""
    return path.with_name(path.name + ".part")


def sync_directory(path: Path) -> None:
    """Writes the directory ``path`` to the disk; only then are new names in it safe."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
