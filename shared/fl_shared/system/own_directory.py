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
        with os.scandir(folders.pop()) as entries:
            folders += [entry.path for entry in entries if _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of the tree is a folder and no file. Raises ``OSError`` for what must not be there."""
    status = entry.stat(follow_symlinks=False)
    is_folder = stat.S_ISDIR(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link, expected none in this directory", entry.path)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is neither a file nor a directory", entry.path)
    may_have_more_names = is_folder or entry.name.endswith(".safetensors") or is_temporary(entry.name)
    if status.st_nlink > 1 and not may_have_more_names:
        raise OSError(
            errno.EMLINK, "has another name as well (a hard link); replace it by a copy", entry.path
        )
    _check_owner_and_mode(entry.path, status)
    return is_folder


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
