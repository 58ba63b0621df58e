"""Pictures in a folder for each class: which there are, and which of them belong to an edge. Decodes none.

``DIR/CLASS/*.png``, or ``DIR/SITE/CLASS/*.png`` for several sites; the same below ``DIR/train``. The test split is
``DIR/test/CLASS/*.png``. JPEG will do, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from fl_edge.data.partition import Indices, partition_index, partitions
from fl_edge.errors import DataMismatchError, DataMissingError
from fl_shared.protocol.messages import Partition
from fl_shared.protocol.partition_scheme import Natural, parse_scheme

TRAIN, TEST = "train", "test"
MAX_CLASSES: Final = 1_000
MAX_CLASS_NAME: Final = 100
"""Characters; the name of a class is part of that of an array."""
_ENDINGS: Final = (".png", ".jpg", ".jpeg")
_EXPECTED: Final = "expected a folder for each class: CLASS/*.png, or SITE/CLASS/*.png"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A picture, its class and its site, both as numbers."""

    path: Path
    label: int
    site: int


class PictureFolders:
    """The pictures in ``path``. Raises ``DataMissingError``, which names the folder that is wrong.

    ``classes``: those of the run; empty: the names of the folders.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.path = path
        base = path / TRAIN if (path / TRAIN).is_dir() else path
        self._test = [path / TEST] if (path / TEST).is_dir() else []
        folders = [folder for folder in _folders(base) if folder not in self._test]
        self._has_sites = not any(map(_pictures, folders)) and any(map(_folders, folders))
        self._sites = folders if self._has_sites else [base] if folders else []
        found = sorted(
            {folder.name for site in self._sites or self._test for folder in self._of_classes(site)}
        )
        if not found:
            raise DataMissingError(f"{base}: has no folders of pictures, {_EXPECTED}")
        self.classes = classes or tuple(found)
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise DataMismatchError(
                f"{base}: has {len(self.classes)} classes ({', '.join(self.classes)[:200]}), expected 2 to "
                f"{MAX_CLASSES} (name all of the run: --task-option classes=A,B)"
            )
        for name in self.classes:
            if len(name) > MAX_CLASS_NAME or not name.isprintable():
                raise DataMismatchError(
                    f"{base}: the class {name[:40]!r}, expected at most {MAX_CLASS_NAME} printable characters"
                )

    @cached_property
    def train(self) -> tuple[LabelledFile, ...]:
        """All pictures but those of the test split, by site, class and name."""
        return self._files(self._sites)

    @cached_property
    def test(self) -> tuple[LabelledFile, ...]:
        """The pictures of the test split."""
        if not self._test:
            raise DataMissingError(f"{self.path}: has no test split, expected {TEST}/CLASS/*.png")
        return self._files(self._test)

    def part(self, partition: Partition) -> Indices:
        """Returns which pictures of `train` belong to the partition; ``natural``: those of the k-th site.

        Raises ``ValueError`` naming the member of ``partition`` that does not fit.
        """
        if isinstance(parse_scheme(partition.scheme), Natural):
            return self._site_number(partition.index)
        labels = np.array([file.label for file in self.train], np.int64)
        return partitions(labels, partition)[partition_index(partition)]

    def _site_number(self, index: int) -> Indices:
        sites = len(self._sites) if self._has_sites else 0
        if index >= sites:
            raise DataMissingError(
                f"{self.path}: has {sites} sites (SITE/CLASS/*.png), but this edge's is number {index + 1} "
                "(--partition natural); if each edge has pictures of its own: --partition own"
            )
        part = np.flatnonzero([file.site == index for file in self.train]).astype(np.int64)
        if not len(part):
            raise DataMissingError(f"{self._sites[index]}: has no picture, expected CLASS/*.png")
        return part

    def _files(self, roots: Sequence[Path]) -> tuple[LabelledFile, ...]:
        labels = {name: label for label, name in enumerate(self.classes)}
        files: list[LabelledFile] = []
        for number, root in enumerate(roots):
            for folder in self._of_classes(root):
                if folder.name not in labels:
                    raise DataMismatchError(
                        f"{folder}: is no folder of a class, expected one of: {', '.join(self.classes)}"
                    )
                files += [LabelledFile(path, labels[folder.name], number) for path in _pictures(folder)]
        if not files:
            raise DataMissingError(
                f"{' and '.join(map(str, roots)) or self.path}: has no picture, {_EXPECTED}"
            )
        return tuple(files)

    def _of_classes(self, root: Path) -> list[Path]:
        return [folder for folder in _folders(root) if folder not in self._test]


def difference(run: Sequence[str], here: Sequence[str]) -> str | None:
    """Returns how the classes ``here`` differ from those of the run, in one sentence; None if they do not."""
    odd = sorted(set(run) ^ set(here))
    if not odd:
        return None
    state = "of the run has no folder" if odd[0] in run else "is not in the run"
    return (
        f"class {odd[0]!r} {state}; the run has: {', '.join(run)} "
        f"(--task-option classes={','.join(sorted({*run, *here}))})"
    )


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in _entries(path) if entry.is_dir())


def _pictures(path: Path) -> list[Path]:
    return sorted(entry for entry in _entries(path) if entry.suffix.lower() in _ENDINGS and entry.is_file())


def _entries(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataMissingError(f"{path}: cannot be read: {error.strerror}") from error
