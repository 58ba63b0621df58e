"""Models on disk, as safetensors files.

Their metadata holds ``buffers`` (a JSON list: the arrays that are not trained), ``version``, what else
`Checkpoints.write` is given, and at the end of a run ``metrics``. It holds no time and no run id, so that two runs of
one seed write equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from fl_aggregator.storage.disk_space import raising_disk_full
from fl_aggregator.storage.strategy_state import state_digest, write_state
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.files import delete_temporary_files, temporary_path, write_atomically
from fl_shared.tensors.digest import digest_of
from fl_shared.tensors.encodings.bfloat16 import BFLOAT16
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import MAX_ARRAYS, Manifest, Vector, flatten, manifest_of
from fl_shared.tensors.safetensors_file import Head, Tensor, file_head, read_head
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest

DIRECTORY: Final = "checkpoints"
MAX_CHECKPOINTS: Final = 3
"""Number of checkpoints that are kept: the version before the newest may still be in evaluation."""
BUFFERS: Final = "buffers"
"""The key in the metadata of a model of ours."""
ENCODING: Final = "published_as"
"""The key of the encoding in which the model was published, if that is not float32."""
CONTENT: Final = "content"
"""The key of the digest of the float32 weights, in hexadecimal, with `ENCODING`."""
MODEL_ENCODINGS: Final = (FLOAT32.name, BFLOAT16.name)
"""In which a model can be published. Others lose too much, or are for changes."""
_VERSION_NAME: Final = re.compile(r"version-([0-9]{6,15})\.safetensors")


@dataclass(frozen=True, slots=True)
class Model:
    """The weights of a model, of shape (manifest.values,), with their manifest, and the digest of what is published.

    ``encoding``: in which it is published. The weights are float32 all the same.
    """

    manifest: Manifest
    weights: Vector
    digest: str
    encoding: str = FLOAT32.name

    @classmethod
    def of(
        cls, manifest: Manifest, weights: Vector, name: str = WEIGHTS, encoding: str = FLOAT32.name
    ) -> Model:
        """Makes a model of weights, which are converted to contiguous float32, and computes its digest.

        ``name``: of its one section.
        """
        weights = np.ascontiguousarray(weights, np.float32)
        unnamed = cls(manifest, weights, "", encoding)
        return replace(unnamed, digest=model_digest([unnamed.section(name)]))

    @property
    def data(self) -> memoryview:
        """The bytes of the weights, as they are stored."""
        return FLOAT32.encode(self.weights, seed=0)

    def section(self, name: str = WEIGHTS) -> ModelSection:
        """The one section of the model, as it is published."""
        form = SectionFormat.of(self.encoding, self.manifest)
        return ModelSection(name, self.manifest, form.encode(self.weights, seed=0), self.encoding)

    def published_in(self, encoding: str) -> Model:
        """The same weights, published in another encoding."""
        return self if encoding == self.encoding else Model.of(self.manifest, self.weights, WEIGHTS, encoding)


class Checkpoints:
    """``DIR/checkpoints/version-<n>.safetensors``, ``DIR/model.safetensors`` and ``DIR/best.safetensors``."""

    def __init__(self, directory: Path, *, sync: bool = False, kept: int = MAX_CHECKPOINTS) -> None:
        """``sync``: when `write` returns, the checkpoint is on the disk and not only in the page cache.

        ``kept``: how many versions have one.
        """
        self._directory = directory
        self._sync = sync
        self.kept = max(kept, MAX_CHECKPOINTS)

    def begin_writing(self) -> None:
        """Makes the directory ready for `write` and `store_best`. Raises ``OSError``."""
        (self._directory / DIRECTORY).mkdir(parents=True, exist_ok=True)
        delete_temporary_files(self._directory / DIRECTORY)

    @property
    def model_path(self) -> Path:
        """The file of the newest version."""
        return self._directory / "model.safetensors"

    @property
    def best_path(self) -> Path:
        """The file of the best version, which exists once `store_best` has been called."""
        return self._directory / "best.safetensors"

    @property
    def served_path(self) -> Path:
        """The file of the newest mean of versions, which exists once one was written."""
        return self._directory / "served.safetensors"

    def mean_path(self, number: int) -> Path:
        """The file of the mean of versions that ends with version ``number``, if there is one."""
        return self.version_path(number).with_suffix(".mean.safetensors")

    def version_path(self, number: int) -> Path:
        """The file of version ``number``. It exists for the last ``kept`` versions."""
        return self._directory / DIRECTORY / f"version-{number:06d}.safetensors"

    def state_path(self, number: int) -> Path:
        """The file of the strategy's state at version ``number``, if there is any; kept as long as the version."""
        return self.version_path(number).with_suffix(".state.safetensors")

    def write(
        self,
        number: int,
        model: Model,
        metadata: Mapping[str, str] | None = None,
        state: Mapping[str, Vector] | None = None,
    ) -> str | None:
        """Writes the checkpoint of version ``number``, then replaces ``model.safetensors`` by it atomically.

        ``metadata`` is written beside ``version`` and ``buffers``. ``state``: that of the strategy, whose digest is
        returned; its file is written first. Deletes the checkpoints beyond the last ``kept``. Raises
        ``OSError`` (for example ``DiskFull``), after which it may be called again.
        """
        if state:
            write_state(self.state_path(number), state, sync=self._sync)
        path = self.version_path(number)
        with raising_disk_full(len(model.data), path.parent):
            header = safetensors_header(model, {"version": str(number), **(metadata or {})})
            write_atomically(path, header, model.data, sync=self._sync)
            self._link(path, self.model_path)
        for old in self.versions()[: -self.kept]:
            self._delete(old)
        return state_digest(state) if state else None

    def write_mean(self, number: int, mean: Model, metadata: Mapping[str, str]) -> Model:
        """Writes the mean that ends with version ``number``, then replaces ``served.safetensors`` by it.

        Returns it with its weights mapped from its file. Raises ``OSError``, after which it may be called again.
        """
        path = self.mean_path(number)
        with raising_disk_full(len(mean.data), path.parent):
            header = safetensors_header(mean, {"version": str(number), **metadata})
            write_atomically(path, header, mean.data, sync=self._sync)
            self._link(path, self.served_path)
        return _mapped(path, mean)

    def _delete(self, number: int) -> None:
        self.version_path(number).unlink(missing_ok=True)
        self.mean_path(number).unlink(missing_ok=True)
        self.state_path(number).unlink(missing_ok=True)

    def versions(self) -> list[int]:
        """The versions that have a checkpoint, in order."""
        folder = self._directory / DIRECTORY
        names = (_VERSION_NAME.fullmatch(file.name) for file in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(name[1]) for name in names if name)

    def drop_after(self, number: int) -> None:
        """Deletes the checkpoints of later versions, and makes version ``number`` the newest. Raises ``OSError``."""
        for later in self.versions():
            if later > number:
                self._delete(later)
        self._link(self.version_path(number), self.model_path)
        if self.mean_path(number).exists():
            self._link(self.mean_path(number), self.served_path)
        else:
            self.served_path.unlink(missing_ok=True)

    def read(self, number: int, digest: str) -> Model:
        """The model of version ``number``, which must have this digest.

        Raises ``RunFailed`` with the file's name if it is missing or damaged, or is another model.
        """
        return self._read(self.version_path(number), digest)

    def read_mean(self, number: int, digest: str) -> Model:
        """The mean that ends with version ``number``, in the same way, with its weights mapped from its file."""
        path = self.mean_path(number)
        return _mapped(path, self._read(path, digest))

    def _read(self, path: Path, digest: str) -> Model:
        if not path.exists():
            raise RunFailed(f"{path}: is missing")
        try:
            model = read_safetensors(path)
        except UserError as error:
            raise RunFailed(str(error)) from None
        if digest != model.digest:
            raise RunFailed(
                f"{path}: is not the model in the journal (digest {model.digest[:12]}, expected {digest[:12]})"
            )
        return model

    def read_state(self, number: int, digest: str | None) -> dict[str, Vector]:
        """The strategy's state at version ``number``, which must have this digest; empty for a null one.

        Raises ``RunFailed`` with the file's name if it is missing or damaged, or is another state.
        """
        if digest is None:
            return {}
        path = self.state_path(number)
        try:
            arrays = read_arrays(path)[1]
        except UserError as error:
            raise RunFailed(str(error)) from None
        state = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        if state_digest(state) != digest:
            raise RunFailed(
                f"{path}: is not the strategy's state in the journal (expected digest {digest[:12]})"
            )
        return state

    def memory_mapped(self, number: int, model: Model) -> Model:
        """The same model, with its weights mapped from the checkpoint of version ``number``."""
        return _mapped(self.version_path(number), model)

    def store_best(self, number: int) -> bool:
        """Replaces ``best.safetensors`` by version ``number``; false if its checkpoint no longer exists.

        With a mean of versions, that was measured, and is the best one. Raises ``OSError`` (for example ``DiskFull``).
        """
        path = self.mean_path(number) if self.mean_path(number).exists() else self.version_path(number)
        if not path.exists():
            return False
        with raising_disk_full(path.stat().st_size, self._directory):
            self._link(path, self.best_path)
        return True

    def add_metrics(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Writes the metrics into the metadata of the models that were measured: the newest one and the best one.

        Raises ``OSError``.
        """
        newest = self.served_path if self.served_path.exists() else self.model_path
        for path in (newest, self.best_path):
            if path.exists():
                head = _read_head(path)
                found = metrics.get(int(head.metadata.get("version", -1)), {})
                header = file_head(
                    head.tensors, {**head.metadata, "metrics": json.dumps(found, sort_keys=True)}
                )
                data = np.memmap(path, np.uint8, "r", head.size)
                with raising_disk_full(len(data), path.parent):
                    write_atomically(path, header, data.data, sync=self._sync)

    def _link(self, source: Path, target: Path) -> None:
        """Replaces ``target`` by a hard link to ``source``, or by a copy if the file system has no links."""
        temporary = temporary_path(target)
        try:
            os.link(source, temporary)
        except OSError:
            try:
                shutil.copyfile(source, temporary)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # if it and the target are the same file, it was not renamed


def _mapped(path: Path, model: Model) -> Model:
    """The same model, with its weights mapped from the file ``path``."""
    data = np.memmap(path, np.uint8, "r", _read_head(path).size, shape=(len(model.data),))
    return replace(model, weights=FLOAT32.decode(data.data))


def safetensors_header(model: Model, metadata: Mapping[str, str]) -> bytes:
    """The bytes before the weights in a safetensors file; the weights follow as they are in the vector."""
    buffers = [array.name for array in model.manifest.arrays if array.role == "buffer"]
    if model.encoding != FLOAT32.name:  # the digest says nothing of the bits that are not published
        metadata = {**metadata, ENCODING: model.encoding, CONTENT: digest_of(model.data)}
    tensors = (Tensor(a.name, a.shape, FLOAT32.size(a.values)) for a in model.manifest.arrays)
    return file_head(tensors, {BUFFERS: json.dumps(buffers), **metadata})


def _read_head(path: Path) -> Head:
    with path.open("rb") as file:
        return read_head(file)


def read_safetensors(path: Path) -> Model:
    """The model in a safetensors file. Raises ``UserError`` with what is wrong with the file."""
    return model_of(path, *read_arrays(path))


def read_arrays(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The metadata and the arrays of a safetensors file. Raises ``UserError`` with what is wrong with the file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("expected a regular file")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except TypeError as error:  # of NumPy, which lacks some types of PyTorch, such as bfloat16
        raise UserError(f"{path}: {error}; expected float16, float32 or float64") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from None
    if not 0 < len(arrays) <= MAX_ARRAYS:
        raise UserError(f"{path}: contains {len(arrays)} arrays, expected 1 to {MAX_ARRAYS}")
    return metadata, arrays


def model_of(path: Path, metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> Model:
    """The model in the arrays of the file ``path``. Raises ``UserError`` with what is wrong with the file."""
    try:
        buffers = json.loads(metadata.get(BUFFERS, "[]"))
    except ValueError:
        buffers = None
    if not isinstance(buffers, list):
        raise UserError(f"{path}: buffers in its metadata is not a list")
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{path}: {name!r} has the type {array.dtype}, expected a float type")
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name!r} contains a value that is not finite")
    try:
        manifest = manifest_of(arrays, buffers)
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors(include_url=False)[0]['msg']}") from None
    encoding = metadata.get(ENCODING, FLOAT32.name)
    if encoding not in MODEL_ENCODINGS:
        raise UserError(
            f"{path}: {ENCODING} in its metadata is {encoding!r:.40}, expected {' or '.join(MODEL_ENCODINGS)}"
        )
    model = Model.of(manifest, flatten(arrays, manifest), encoding=encoding)
    if encoding != FLOAT32.name and metadata.get(CONTENT) != digest_of(model.data):
        raise UserError(f"{path}: {CONTENT} in its metadata does not match the weights: the file is damaged")
    return model


def model_sha256(path: Path) -> str:
    """The SHA-256, in hexadecimal, of the model in a file of ours: of the file without its metadata.

    So equal models have equal digests, whatever version of a run they are. The names of the buffers, if there are any,
    are part of the model.
    """
    with path.open("rb") as file:
        head = read_head(file)
        buffers = head.metadata.get(BUFFERS, "[]")
        sha = hashlib.sha256(file_head(head.tensors, None if buffers == "[]" else {BUFFERS: buffers}))
        while block := file.read(2**20):
            sha.update(block)
        return sha.hexdigest()
