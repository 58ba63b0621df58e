"""Checks that a directory is one that only this user can have filled, before anything in it is believed.

A directory that somebody packed and sent is this user's once it is unpacked. So links are refused as well: what
is written, cut or deleted in the directory must not be elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fl_shared.system.files import is_temporary


def check_directory(path: Path) -> None:
    """Raises ``OSError`` unless ``path`` (or its target) is a directory of this user that nobody else may write to."""
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    _check_owner_and_mode(str(path), status)


def check_tree(path: Path) -> None:
    """Like `check_directory`, and for everything in it: raises ``OSError`` for a link or any other special file.

    A file that has a second name outside of the directory would be changed there as well. Only models and temporary
    files may have several names: they are never changed, only replaced or deleted.
    """
    check_directory(path)
    folders = [os.fspath(path)]
    while folders:
        for entry in os.scandir(folders.pop()):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                folders.append(entry.path)
            elif stat.S_ISLNK(status.st_mode):
                raise OSError(errno.ELOOP, "is a symbolic link, expected none in this directory", entry.path)
            elif not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is neither a file nor a directory", entry.path)
            elif status.st_nlink > 1 and not (
                entry.name.endswith(".safetensors") or is_temporary(entry.name)
            ):
                raise OSError(
                    errno.EMLINK, "has another name as well (a hard link); replace it by a copy", entry.path
                )
            _check_owner_and_mode(entry.path, status)


def _check_owner_and_mode(path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise OSError(
            errno.EPERM,
            f"belongs to another user ({status.st_uid}), expected one of your own ({os.geteuid()}), such as a copy",
            path,
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(
            errno.EPERM,
            f"other users can write to it (mode {stat.S_IMODE(status.st_mode):03o}); "
            "if you trust its content: chmod -R go-w",
            path,
        )
