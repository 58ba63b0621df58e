"""Models on disk: safetensors, without time, run id or version in them, so that equal models are equal files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.files import sync_directory, temporary_path, write_atomically
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest, Vector, flatten, manifest_of
from fl_shared.tensors.safetensors_file import Tensor, file_head
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest

DIRECTORY: Final = "checkpoints"
MAX_CHECKPOINTS: Final = 3
"""Checkpoints that stay: an evaluation may still be under way for the one before the newest."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights, shape (manifest.values,), and what they are."""

    manifest: Manifest
    weights: Vector
    digest: str

    @classmethod
    def of(cls, manifest: Manifest, weights: Vector) -> Model:
        weights = np.ascontiguousarray(weights, np.float32)
        section = ModelSection(WEIGHTS, manifest, FLOAT32.encode(weights, seed=0))
        return cls(manifest, weights, model_digest([section]))

    @property
    def data(self) -> memoryview:
        """The weights' bytes, as the model is sent and kept."""
        return FLOAT32.encode(self.weights, seed=0)


class Checkpoints:
    """``DIR/checkpoints/version-<n>.safetensors``, ``DIR/model.safetensors`` and ``DIR/best.safetensors``."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        """``sync``: what is written is on the disk when a method returns, not only in the page cache."""
        self._directory = directory
        self._sync = sync
        (directory / DIRECTORY).mkdir(parents=True, exist_ok=True)

    @property
    def model_path(self) -> Path:
        return self._directory / "model.safetensors"

    @property
    def best_path(self) -> Path:
        return self._directory / "best.safetensors"

    def version_path(self, number: int) -> Path:
        return self._directory / DIRECTORY / f"version-{number:06d}.safetensors"

    def write(self, number: int, model: Model) -> None:
        """Keeps a version: first its checkpoint, then ``model.safetensors`` becomes it in one step.

        Raises ``OSError`` (``DiskFull``, say); may be called again then.
        """
        path = self.version_path(number)
        with raising_disk_full(len(model.data), path.parent):
            write_atomically(path, safetensors_header(model), model.data, sync=self._sync)
            self._link(path, self.model_path)
        for old in sorted((self._directory / DIRECTORY).glob("version-*.safetensors"))[:-MAX_CHECKPOINTS]:
            old.unlink(missing_ok=True)

    def read(self, number: int) -> Model:
        """A version that was written. Raises ``RunFailed`` naming its file if that is gone or damaged."""
        path = self.version_path(number)
        if not path.exists():
            raise RunFailed(f"{path}: is missing, and the run cannot continue without it")
        try:
            return read_safetensors(path)
        except UserError as error:
            raise RunFailed(f"{error}; the run cannot continue without it") from None

    def memory_mapped(self, number: int, model: Model) -> Model:
        """The same model with its weights in the version's file instead of in memory."""
        header = len(safetensors_header(model))
        data = np.memmap(self.version_path(number), np.uint8, "r", header, shape=(len(model.data),))
        return replace(model, weights=FLOAT32.decode(data.data))

    def store_best(self, number: int) -> bool:
        """Makes ``best.safetensors`` that version; False if its checkpoint is gone already."""
        path = self.version_path(number)
        if not path.exists():
            return False
        with raising_disk_full(path.stat().st_size, self._directory):
            self._link(path, self.best_path)
        return True

    def _link(self, source: Path, target: Path) -> None:
        """``target`` becomes another name of ``source``, or a copy where the file system knows no links."""
        beside = temporary_path(target)
        beside.unlink(missing_ok=True)
        try:
            os.link(source, beside)
        except OSError:
            try:
                shutil.copyfile(source, beside)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        beside.replace(target)
        if self._sync:
            sync_directory(target.parent)


def safetensors_header(model: Model) -> bytes:
    """What stands before the weights in a safetensors file, which holds them just as they lie in the vector.

    ``buffers`` in the metadata names (JSON) the arrays that are not learnt.
    """
    buffers = [array.name for array in model.manifest.arrays if array.role == "buffer"]
    tensors = (Tensor(a.name, a.shape, FLOAT32.size(a.values)) for a in model.manifest.arrays)
    return file_head(tensors, {"buffers": json.dumps(buffers)} if buffers else None)


def read_safetensors(path: Path) -> Model:
    """The model in a safetensors file. Raises ``UserError`` saying what is wrong with it."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        buffers = json.loads(metadata.get("buffers", "[]"))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from None
    if not arrays:
        raise UserError(f"{path}: contains no arrays")
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{path}: {name!r} has the type {array.dtype}, expected a float type")
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name!r} contains a value that is not finite")
    manifest = manifest_of(arrays, buffers)
    return Model.of(manifest, flatten(arrays, manifest))


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
