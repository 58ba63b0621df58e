"""The initial weights that ``--init`` names: a model of ours, or a plain ``state_dict`` of PyTorch.

A file of ours says which arrays are buffers. A plain one does not, so its roles are those of the first edge's model.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.storage.checkpoint import BUFFERS, Model, model_of, read_arrays
from fl_shared.errors import UserError
from fl_shared.protocol.task_spec import KEEP_LOCAL
from fl_shared.system.text import names_text
from fl_shared.tensors.manifest import Manifest, Vector, flatten

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PlainWeights:
    """The floating-point arrays of a plain file; ``others`` names the rest of it. ``sha256``: of the file."""

    path: Path
    sha256: str
    arrays: Mapping[str, NDArray[Any]]
    others: tuple[str, ...]

    def fit(self, manifest: Manifest) -> Vector:
        """Returns the weights in the order of ``manifest``. What else is in the file stays at home.

        Raises ``UserError``, which names the first array that differs, and both shapes.
        """
        left_out = sorted({*self.arrays, *self.others} - {array.name for array in manifest.arrays})
        for spec in manifest.arrays:
            array = self.arrays.get(spec.name)
            if array is None:
                only = f" (it has {names_text(left_out)})" if left_out else ""
                raise UserError(
                    f"--init {self.path}: contains no floating-point array {spec.name!r}, which has the shape "
                    f"{spec.shape} in the edges' model{only}"
                )
            if array.shape != spec.shape:
                raise UserError(
                    f"--init {self.path}: array {spec.name!r} has the shape {array.shape}, but {spec.shape} in the "
                    "edges' model"
                )
        if left_out:
            LOG.info("--init %s: not in the run: %s", self.path, names_text(left_out))
        return flatten(self.arrays, manifest)


def read_initial_weights(path: Path, task: str, local: str = "") -> Model | PlainWeights:
    """Reads a safetensors file for a run of ``task``. Raises ``UserError`` with what is wrong with it.

    A model of another task counts as plain, so that it is compared with the model of the edges, array by array. So does
    one without another part than that which stays on the edges, ``local`` (`Settings.local_patterns`).
    """
    try:
        return _read(path, task, local)
    except UserError as error:
        raise UserError(f"--init {error}") from None


def _read(path: Path, task: str, local: str) -> Model | PlainWeights:
    metadata, arrays = read_arrays(path)
    if BUFFERS in metadata and metadata.get("task", task) == task and metadata.get(KEEP_LOCAL, "") == local:
        return model_of(path, metadata, arrays)
    floats = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    for name, array in floats.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name!r} contains a value that is not finite")
    if not floats:
        raise UserError(f"{path}: contains no floating-point array")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PlainWeights(path.absolute(), digest, floats, tuple(arrays.keys() - floats.keys()))


def read_again(path: Path, task: str, sha256: str, local: str = "") -> PlainWeights:
    """Reads the plain file of a run that is resumed. Raises ``UserError`` if it is another file now."""
    weights = read_initial_weights(path, task, local)
    if not isinstance(weights, PlainWeights) or weights.sha256 != sha256:
        raise UserError(f"--init {path}: has changed since the run began: expected the SHA-256 {sha256}")
    return weights
