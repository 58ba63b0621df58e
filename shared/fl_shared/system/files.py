"""Files that are whole or not there, whatever happens while they are written; and files that are secret."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import IO, Final

LOG: Final = logging.getLogger(__name__)


def read_at_most(path: Path, most: int) -> tuple[bytes, int]:
    """``most`` bytes of it, if there are so many, and its mode. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(most), os.fstat(file.fileno()).st_mode


def warn_if_others_may_read(what: str, path: Path, mode: int) -> None:
    """``path`` of the mode ``mode`` holds a secret; ``what`` names it."""
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        LOG.warning(
            "%s %s: other users can read it (mode %03o); run: chmod 600 %s",
            what,
            path,
            stat.S_IMODE(mode),
            path,
        )


def write_all(file: IO[bytes], *pieces: bytes | memoryview) -> None:
    """All of the pieces, one after the other, into an unbuffered file, which may take less than it is given at once."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]


def write_atomically(
    path: Path, *pieces: bytes | memoryview, sync: bool = False, private: bool = False
) -> None:
    """Writes beside and renames: ``path`` holds either what it held or all of ``pieces``, one after the other.

    ``sync``: and it is on the disk, not only in the page cache. ``private``: only its owner may ever read it (mode
    0600). Raises ``OSError``.
    """
    beside = temporary_path(path)
    try:
        if private:
            beside.unlink(missing_ok=True)  # others may read that one, perhaps
            beside.touch(mode=0o600, exist_ok=False)
        with beside.open("wb", buffering=0) as file:
            write_all(file, *pieces)
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """``path`` is then all of ``content``, on the disk and with mode 0600, or what it was. Raises ``OSError``."""
    write_atomically(path, content, sync=True, private=True)


def temporary_path(path: Path) -> Path:
    """Where it is written first; who dies meanwhile leaves it there."""
    return path.with_name(path.name + ".part")


def sync_directory(path: Path) -> None:
    """A new name is on the disk when its directory is."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
