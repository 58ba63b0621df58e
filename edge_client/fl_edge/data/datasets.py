"""Finds the data sets of the built-in tasks, downloads them if necessary, and reads them.

What has been read stays in memory as uint8, one copy for each process, shared by all edges in it. Without
``data_dir`` the usual directories are searched, and downloads go to the cache. With it only that directory
counts, so that an edge never trains on data that the user did not mean.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from fl_edge.data import cifar10_pickles
from fl_edge.data.downloads import DataSetFiles, fetch
from fl_edge.data.formats import Uint8Array, read_cifar_archive, read_cifar_files, read_idx
from fl_edge.errors import DataCorruptError, DataMissingError
from fl_shared.data.digits import DIGITS

DataSetName = Literal["digits", "mnist", "fashion-mnist", "cifar10"]
DataSetSplit = Literal["train", "test"]

CLASSES: Final = 10
"""Number of classes, the same in each of the data sets."""
DIGITS_TEST_SHARE: Final = 0.2
"""Fraction of the digits that is the test split."""
_DIGITS_SPLIT_SEED: Final = 1797

SYSTEM_DIRECTORIES: Final = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Directories in which packages of Linux distributions install a data set."""


def _fetch_hint(name: str) -> str:
    return f"; in a clone of fl-mqtt: python -m scripts.fetch_data {name} DIR"


_CIFAR_ARCHIVE: Final = "cifar-10-binary.tar.gz"
_CIFAR_TRAIN: Final = [f"data_batch_{i}.bin" for i in range(1, 6)]
_CIFAR_TEST: Final = ["test_batch.bin"]


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """One split of a data set.

    ``images``: uint8, shape (examples, height, width, channels); ``labels``: int64, shape (examples,).
    """

    images: Uint8Array
    labels: NDArray[np.int64]


@lru_cache(maxsize=8)
def read(
    name: DataSetName, split: DataSetSplit, data_dir: Path | None = None, download: bool = True
) -> DataSet:
    """Reads one split of a data set, whose arrays are shared and read-only.

    Raises ``DataMissingError`` saying which files to put where, ``DataCorruptError`` naming the broken file.
    """
    match name:
        case "digits":
            images, labels = _digits(split)
        case "mnist" | "fashion-mnist":
            images, labels = _idx(_IDX[name], split, data_dir, download)
        case "cifar10":
            images, labels = _cifar10(split, data_dir, download)
        case _:
            assert_never(name)
    images.flags.writeable = False
    labels.flags.writeable = False
    return DataSet(images, labels)


def cache_dir() -> Path:
    """Returns the directory of downloads: ``$XDG_CACHE_HOME/fl-mqtt``, or ``~/.cache/fl-mqtt``.

    Without either, ``.cache/fl-mqtt`` in the working directory.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or (_home() or Path()) / ".cache") / "fl-mqtt"


def _home() -> Path | None:
    """The user's home, or None: in a container, a user may have neither ``HOME`` nor an entry in the list of users."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _digits(split: DataSetSplit) -> tuple[Uint8Array, NDArray[np.int64]]:
    """Reads the handwritten digits that ship with us, of which a fixed fifth is the test split.

    There are 1797 of 8 × 8 pixels, with values from 0 to 16.
    """
    rows = np.loadtxt(DIGITS, np.uint8, delimiter=",")
    order = np.random.default_rng(np.random.SeedSequence(_DIGITS_SPLIT_SEED)).permutation(len(rows))
    test = round(DIGITS_TEST_SHARE * len(rows))
    selected = rows[np.sort(order[:test] if split == "test" else order[test:])]
    return np.ascontiguousarray(selected[:, :-1]).reshape(-1, 8, 8, 1), selected[:, -1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class _IdxSource:
    """Where a data set in MNIST's layout may be, and what torchvision calls it."""

    name: str
    torchvision: Literal["MNIST", "FashionMNIST"]
    hint: str

    def directories(self, data_dir: Path | None) -> list[Path]:
        layouts = (Path(self.torchvision) / "raw", Path(self.name))
        if data_dir is not None:
            return [*(data_dir / layout for layout in layouts), data_dir]
        system = [SYSTEM_DIRECTORIES[self.name]] if self.name in SYSTEM_DIRECTORIES else []
        return [*system, *(root / layout for root in _search_directories() for layout in layouts)]


_IDX: Final[dict[DataSetName, _IdxSource]] = {
    "mnist": _IdxSource("mnist", "MNIST", hint=_fetch_hint("mnist")),
    "fashion-mnist": _IdxSource(
        "fashion-mnist",
        "FashionMNIST",
        hint="; on Debian and Ubuntu: apt install dataset-fashion-mnist",
    ),
}


def _search_directories() -> list[Path]:
    home = _home()
    return [cache_dir(), Path("data"), *([] if home is None else [home / "data"])]


def _idx(
    source: _IdxSource, split: DataSetSplit, data_dir: Path | None, download: bool
) -> tuple[Uint8Array, NDArray[np.int64]]:
    prefix = "train" if split == "train" else "t10k"
    file_names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    _check_directory(source.name, data_dir)
    directories = source.directories(data_dir)
    found = _find(directories, file_names)
    download_error = ""
    if found is None and download:
        target = (data_dir or cache_dir()) / source.torchvision / "raw"
        download_error = fetch(
            DataSetFiles(source.torchvision, tuple(f"{name}.gz" for name in file_names)), target
        )
        found = _find(directories, file_names)
    if found is None:
        files = " and ".join(f"{name}.gz" for name in file_names)
        raise _missing(
            source.name,
            f"{files} (or the same unpacked)",
            ", ".join(map(str, directories)),
            data_dir,
            source.hint,
            download_error,
        )
    images, labels = read_idx(found[0], 3), read_idx(found[1], 1)
    if images.shape[1:] != (28, 28):
        raise DataCorruptError(
            f"{found[0]}: images of {images.shape[1]} × {images.shape[2]} pixels, expected 28 × 28"
        )
    return images[..., np.newaxis], _check_labels(labels, len(images), str(found[1]))


def _find(directories: Sequence[Path], file_names: Sequence[str]) -> list[Path] | None:
    """Returns the files if one of the directories has all of them, otherwise ``None``.

    Each may be packed or not, and spelled in either of the two common ways.
    """
    for directory in directories:
        found: list[Path] = []
        for name in file_names:
            dotted = name.replace("-idx", ".idx")
            paths = (directory / file_name for file_name in (name, f"{name}.gz", dotted, f"{dotted}.gz"))
            found += itertools.islice(filter(_is_file, paths), 1)
        if len(found) == len(file_names):
            return found
    return None


def _cifar10(
    split: DataSetSplit, data_dir: Path | None, download: bool
) -> tuple[Uint8Array, NDArray[np.int64]]:
    _check_directory("cifar10", data_dir)
    names = _CIFAR_TRAIN if split == "train" else _CIFAR_TEST
    roots = _search_directories() if data_dir is None else [data_dir]
    folders = ("cifar-10-batches-bin", cifar10_pickles.FOLDER, "cifar10", f"cifar10/{cifar10_pickles.FOLDER}")
    directories = [root / folder for root in roots for folder in (*folders, "")]
    images_and_labels = _read_cifar(directories, names, split)
    download_error = ""
    if images_and_labels is None and download:
        download_error = fetch(DataSetFiles("CIFAR10", (_CIFAR_ARCHIVE,)), data_dir or cache_dir())
        images_and_labels = _read_cifar(directories, names, split)
    if images_and_labels is None:
        files = (
            f"{_CIFAR_ARCHIVE}, {cifar10_pickles.ARCHIVE}, or one of them unpacked "
            f"({', '.join(names)}, or {cifar10_pickles.META} with its batches)"
        )
        searched = f"{', '.join(map(str, roots))} (and {', '.join(folders)} in it)"
        raise _missing("cifar10", files, searched, data_dir, _fetch_hint("cifar10"), download_error)
    return images_and_labels


def _read_cifar(
    directories: Sequence[Path], names: list[str], split: DataSetSplit
) -> tuple[Uint8Array, NDArray[np.int64]] | None:
    for directory in directories:
        if all(_is_file(directory / name) for name in names):
            images, labels = read_cifar_files([directory / name for name in names])
            return images, _check_labels(labels, len(images), str(directory))
        if _is_file(directory / _CIFAR_ARCHIVE):
            images, labels = read_cifar_archive(directory / _CIFAR_ARCHIVE, names)
            return images, _check_labels(labels, len(images), str(directory / _CIFAR_ARCHIVE))
        if _is_file(directory / cifar10_pickles.META):
            return cifar10_pickles.read_folder(directory, split)
        if _is_file(directory / cifar10_pickles.ARCHIVE):
            return cifar10_pickles.read_archive(directory / cifar10_pickles.ARCHIVE, split)
    return None


def _check_labels(labels: Uint8Array, images: int, source: str) -> NDArray[np.int64]:
    if len(labels) != images:
        raise DataCorruptError(f"{source}: {len(labels)} labels for {images} images")
    if int(labels.max()) >= CLASSES:
        raise DataCorruptError(
            f"{source}: contains the label {int(labels.max())}, expected 0 to {CLASSES - 1}"
        )
    return labels.astype(np.int64)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a directory that we may not enter
        return False


def _check_directory(name: str, data_dir: Path | None) -> None:
    if data_dir is not None and not data_dir.is_dir():
        raise DataMissingError(f"{name}: --data {data_dir} is not a directory")


def _missing(
    name: str, files: str, searched: str, data_dir: Path | None, hint: str, download_error: str
) -> DataMissingError:
    target_hint = "one of these" if data_dir is not None else "one of these, or anywhere else with --data DIR"
    return DataMissingError(
        f"{name}: the data set was not found in {searched}. Put {files} into {target_hint}{hint}."
        + (f" The download failed: {download_error}." if download_error else "")
    )
