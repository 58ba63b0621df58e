"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def write_all(file: IO[bytes], *pieces: bytes | memoryview) -> None:
    """All of the pieces, one after the other, into an unbuffered file, which may take less than it is given at once."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]


def write_atomically(path: Path, *pieces: bytes | memoryview, sync: bool = False) -> None:
    """Writes beside and renames: ``path`` holds either what it held or all of ``pieces``, one after the other.

    ``sync``: and it is on the disk, not only in the page cache. Raises ``OSError``.
    """
    beside = beside_of(path)
    try:
        with beside.open("wb", buffering=0) as file:
            write_all(file, *pieces)
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def beside_of(path: Path) -> Path:
    """Where it is written first; who dies meanwhile leaves it there."""
    return path.with_name(path.name + ".part")


def sync_directory(path: Path) -> None:
    """A new name is on the disk when its directory is."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
