"""Downloads data files through torchvision, which knows the mirrors and the MD5 sums."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fl_shared.system.file_lock import FileLock

log = logging.getLogger(__name__)

READ_TIMEOUT: Final = 10.0
"""Seconds without a byte after which a mirror is given up."""
LOCK_TIMEOUT: Final = 900.0
"""Seconds to wait for another process that is downloading into the same directory."""

# torchvision fetches CIFAR-10 as pickles; the same server has it as plain bytes, and publishes this sum.
_CIFAR10_MIRROR: Final = "https://www.cs.toronto.edu/~kriz/"
_CIFAR10_MD5: Final = "c32a1d4ab5d03f1284b67883e8d87530"


@dataclass(frozen=True, slots=True)
class DataSetFiles:
    """Names of files of a data set to download; ``source`` is torchvision's name of the data set."""

    source: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    files: tuple[str, ...]


def fetch(download: DataSetFiles, target: Path, *, silence: float = READ_TIMEOUT) -> str:
    """Downloads the files into ``target``, each whole or not at all.

    Returns what went wrong, or an empty string. ``silence``: seconds without a byte after which a mirror is
    given up.
    """
    # An edge that downloads nothing needs no HTTP, which takes 1.3 MB of memory.
    from http.client import HTTPException

    try:
        target.mkdir(parents=True, exist_ok=True)
        with _exclusive_lock(target), tempfile.TemporaryDirectory(prefix=".download-", dir=target) as scratch:
            for name in download.files:
                if not (target / name).is_file():
                    log.info("downloading %s for %s", name, download.source)
                    _fetch_one(download.source, name, Path(scratch), silence)
                    (Path(scratch) / name).replace(target / name)
    except (OSError, RuntimeError, ValueError, ImportError, HTTPException) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _fetch_one(source: str, name: str, scratch: Path, silence: float) -> None:
    from http.client import HTTPException

    from torchvision.datasets.utils import download_url

    mirrors, md5 = _sources(source, name)
    problems: list[str] = []
    for mirror in mirrors:
        try:
            # torchvision neither sets a time-out nor stays quiet.
            with _socket_timeout(silence), contextlib.redirect_stderr(io.StringIO()):
                download_url(f"{mirror}{name}", str(scratch), filename=name, md5=md5)
        except (OSError, RuntimeError, HTTPException) as error:
            problems.append(f"{mirror}{name}: {error or type(error).__name__}")
        else:
            return
    raise RuntimeError("; ".join(problems))


def _sources(source: str, name: str) -> tuple[list[str], str]:
    if source == "CIFAR10":
        return [_CIFAR10_MIRROR], _CIFAR10_MD5
    from torchvision import datasets

    data_set = getattr(datasets, source)
    return list(data_set.mirrors), dict(data_set.resources)[name]


@contextlib.contextmanager
def _socket_timeout(silence: float) -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(silence)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


@contextlib.contextmanager
def _exclusive_lock(target: Path) -> Iterator[None]:
    """Lets one process at a time download into ``target``.

    The lock ends with the process that holds it, even if that is killed.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            lock = FileLock(target / ".download.lock", mode=0o644)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"another process has been downloading into {target} for too long"
                ) from None
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.release()
