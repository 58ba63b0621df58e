"""Reads CIFAR-10's Python version, which holds pickles: ``cifar-10-python.tar.gz``, or the folder in it.

A pickle can run any code. torchvision opens these only if their MD5 sums are the known ones.
"""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_edge.data.formats import CIFAR_SIDE, Uint8Array
from fl_edge.errors import DataCorruptError

FOLDER: Final = "cifar-10-batches-py"
ARCHIVE: Final = "cifar-10-python.tar.gz"
META: Final = "batches.meta"
"""The file by which the folder is recognised, whatever its name."""

_FILES: Final = frozenset({META, "test_batch", *(f"data_batch_{i}" for i in range(1, 6))})
_MAX_BYTES: Final = 2**26
"""Bytes of the largest file that is unpacked; the real ones have 31 million."""


def read_folder(folder: Path, split: Literal["train", "test"]) -> tuple[Uint8Array, NDArray[np.int64]]:
    """Reads the images, shape (examples, 32, 32, 3), and the labels, shape (examples,), from the folder.

    Raises ``DataCorruptError`` if a file of it is missing, or is not the known one.
    """
    from torchvision.datasets import CIFAR10

    folder = folder.resolve()
    # A subclass, since torchvision takes the name of the folder from its class.
    known = type("_Known", (CIFAR10,), {"base_folder": folder.name})
    try:
        data = known(folder.parent, train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise DataCorruptError(f"{folder}: {error}") from error
    images: Uint8Array = np.ascontiguousarray(data.data)
    assert images.shape[1:] == (CIFAR_SIDE, CIFAR_SIDE, 3)
    return images, np.array(data.targets, dtype=np.int64)


def read_archive(archive: Path, split: Literal["train", "test"]) -> tuple[Uint8Array, NDArray[np.int64]]:
    """Reads the same from ``cifar-10-python.tar.gz``, whose files are unpacked into a temporary directory.

    Of the paths in the archive only the last part counts. Raises ``DataCorruptError``.
    """
    with tempfile.TemporaryDirectory(prefix="fl-cifar10-") as scratch:
        folder = Path(scratch) / FOLDER
        folder.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    name = Path(member.name).name
                    if name in _FILES and member.isfile() and member.size <= _MAX_BYTES:
                        stream = tar.extractfile(member)
                        (folder / name).write_bytes(b"" if stream is None else stream.read())
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise DataCorruptError(f"{archive}: cannot be read: {error}") from error
        try:
            return read_folder(folder, split)
        except DataCorruptError as error:
            raise DataCorruptError(str(error).replace(str(folder.resolve()), str(archive), 1)) from None
