"""Files that are complete or absent, even if the program crashes while it writes them; files of others; secrets.

``open_regular`` and what is built on it never follow a symbolic link, wait for a pipe or read a device. They
are for files in a directory that somebody else may have made.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

LOG: Final = logging.getLogger(__name__)

MAX_LINE: Final = 64 * 2**20
"""Bytes of the longest line that `read_lines` returns."""
_TEMPORARY_NAME: Final = re.compile(r"\.fl-[0-9a-f]{16}\.tmp")


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Opens a regular file, and follows no link. Raises ``OSError``, also for any other kind of file."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "is a symbolic link, expected a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises ``OSError``, also if it is larger than ``max_bytes``."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"is larger than {max_bytes} bytes", str(path))
    return content


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a regular file with their ends, which the last may lack. Raises ``OSError``."""
    with os.fdopen(open_regular(path), "rb") as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise OSError(errno.EFBIG, f"has a line of more than {MAX_LINE} bytes", str(path))
            yield line


def read_at_most(path: Path, max_bytes: int, *, regular: bool = False) -> tuple[bytes, int]:
    """The first ``max_bytes`` bytes of a file (or fewer, if it is shorter), and its mode. Raises ``OSError``.

    ``regular``: also for a pipe or a device, from which a shell may pass on a secret. Links are followed.
    """
    if regular and (path.is_fifo() or path.is_char_device()):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
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
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb", buffering=0) as file:
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


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Creates ``path``, synced, and overwrites nothing. Raises ``OSError``, ``FileExistsError`` if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb", buffering=0) as file:
        write_all(file, content)
        os.fsync(file.fileno())
    sync_directory(path.parent)


def temporary_path(path: Path) -> Path:
    """A random name beside ``path``, for its content at first. A crash leaves the file behind.

    Nobody can have put a file or a link there before, so it is created with ``O_EXCL``.
    """
    return path.with_name(f".fl-{secrets.token_hex(8)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether ``name`` is of the form that `temporary_path` makes."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def delete_temporary_files(directory: Path) -> None:
    """Deletes what crashed processes left in ``directory``, which its caller has locked. Raises ``OSError``."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_temporary(entry.name) and not entry.is_dir():
                Path(entry.path).unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Writes the directory ``path`` to the disk; only then are new names in it safe."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
