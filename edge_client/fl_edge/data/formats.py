"""Reads the file formats of the data sets with NumPy alone: IDX (MNIST's) and CIFAR-10's binary format.

CIFAR-10 is also distributed as Python pickles: see ``cifar10_pickles``.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from fl_edge.errors import DataCorruptError

Uint8Array = NDArray[np.uint8]

MAX_ARRAY_BYTES: Final = 2**32
"""Bytes of one unpacked array. A header that claims more is taken for damaged, and nothing is allocated for
it."""

_IDX_BYTES: Final = 0x08
CIFAR_SIDE: Final = 32
"""Pixels of one side of a CIFAR-10 image."""
_CIFAR_PIXELS: Final = 3 * CIFAR_SIDE * CIFAR_SIDE


def read_idx(path: Path, dimensions: int) -> Uint8Array:
    """Reads the uint8 array of an IDX file (http://yann.lecun.com/exdb/mnist/), gzipped or not.

    ``dimensions`` is the number that is expected: 1 for labels, 3 (examples, height, width) for images.
    Raises ``DataCorruptError`` naming the file and what is wrong with it.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            return _parse_idx(path, cast(IO[bytes], stream), dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataCorruptError(f"{path}: cannot be read: {error}") from error


def _parse_idx(path: Path, stream: IO[bytes], dimensions: int) -> Uint8Array:
    header = stream.read(4 + 4 * dimensions)
    if not header:
        raise DataCorruptError(f"{path}: is empty")
    expected = bytes((0, 0, _IDX_BYTES, dimensions))
    if header[:4] != expected or len(header) != 4 + 4 * dimensions:
        raise DataCorruptError(
            f"{path}: starts with {header[:4].hex(' ')}, expected {expected.hex(' ')} (an IDX file of bytes "
            f"with {dimensions} dimensions)"
        )
    shape = tuple(int(n) for n in np.frombuffer(header[4:], dtype=">u4"))
    size = 1
    for length in shape:
        size *= length
    if not 0 < size <= MAX_ARRAY_BYTES:
        raise DataCorruptError(f"{path}: the header gives the shape {shape}, {size} bytes")
    data = stream.read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"only {len(data)}"
        raise DataCorruptError(f"{path}: shape {shape} needs {size} bytes, but the file has {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def read_cifar_files(paths: list[Path]) -> tuple[Uint8Array, Uint8Array]:
    """Reads the images and labels of CIFAR-10's ``*.bin`` files, in the order of the files.

    The images have the shape (examples, 32, 32, 3), the labels (examples,). Raises ``DataCorruptError``.
    """
    try:
        return _parse_cifar([(str(path), path.read_bytes()) for path in paths])
    except OSError as error:
        raise DataCorruptError(f"CIFAR-10: cannot be read: {error}") from error


def read_cifar_archive(archive: Path, names: list[str]) -> tuple[Uint8Array, Uint8Array]:
    """Reads the same arrays as `read_cifar_files` from ``cifar-10-binary.tar.gz``, without unpacking it.

    ``names`` are the names of the files in the archive. Raises ``DataCorruptError``.
    """
    blobs: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in names and member.isfile() and member.size <= MAX_ARRAY_BYTES:
                    stream = tar.extractfile(member)
                    blobs[name] = b"" if stream is None else stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataCorruptError(f"{archive}: cannot be read: {error}") from error
    missing = [name for name in names if name not in blobs]
    if missing:
        raise DataCorruptError(f"{archive}: does not contain {', '.join(missing)}")
    return _parse_cifar([(f"{archive}:{name}", blobs[name]) for name in names])


def _parse_cifar(blobs: list[tuple[str, bytes]]) -> tuple[Uint8Array, Uint8Array]:
    """Parses records, each a label and the red, green and blue planes of an image.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    record = 1 + _CIFAR_PIXELS
    for name, blob in blobs:
        if not blob or len(blob) % record:
            raise DataCorruptError(f"{name}: {len(blob)} bytes, expected a multiple of {record}")
    rows = np.concatenate([np.frombuffer(blob, dtype=np.uint8).reshape(-1, record) for _, blob in blobs])
    planes = rows[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, 0].copy()
