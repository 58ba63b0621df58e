"""Converts named arrays to one flat float32 vector with a manifest, and back.

A *section* of a model or an update (for example ``weights``) is ONE contiguous float32 vector, which its
encoding turns into bytes. Its *manifest* lists the arrays in it with name, shape and role, in ascending order
of names; each array begins where the one before it ends. So folding, checking and sending are single passes
over one buffer.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_shared.tensors.digest import digest_of

Vector = NDArray[np.float32]
"""A flat vector, shape (values,), float32."""

MAX_ARRAYS: Final = 20_000
MAX_VALUES: Final = 2**33
MAX_NAME: Final = 256
"""Characters of an array's name."""
MAX_DIMENSIONS: Final = 16
MAGNITUDE_BLOCK: Final = 2**17
"""Values that `magnitude` looks at twice."""

ArrayRole = Literal["parameter", "buffer"]
"""A parameter is trained (optimisers, clipping and distances use only these).

A buffer, such as a running mean, is not trained, only averaged.
"""

Dimension = Annotated[int, Field(ge=0, le=MAX_VALUES)]


class ArraySpec(BaseModel):
    """One array of a section: ``shape`` in elements, row-major."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    shape: Annotated[tuple[Dimension, ...], Field(max_length=MAX_DIMENSIONS, fail_fast=True)]
    role: ArrayRole = "parameter"

    @property
    def values(self) -> int:
        """The number of elements of the array."""
        return math.prod(self.shape)


class Manifest(BaseModel):
    """The arrays of a section, in ascending order of their unique names, so that it has only one manifest."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    arrays: Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)]

    @model_validator(mode="after")
    def _is_canonical(self) -> Manifest:
        names = [array.name for array in self.arrays]
        if any(a >= b for a, b in itertools.pairwise(names)):
            raise ValueError("arrays: names must be unique and in ascending order")
        if self.values > MAX_VALUES:
            raise ValueError(f"arrays: {self.values} values, expected at most {MAX_VALUES}")
        return self

    @cached_property
    def values(self) -> int:
        """The number of elements of the whole section."""
        return sum(array.values for array in self.arrays)

    @cached_property
    def digest(self) -> str:
        """BLAKE3 (hex) of the canonical JSON ``[[name, [shape…], role], …]``."""
        rows = [[a.name, list(a.shape), a.role] for a in self.arrays]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
        return digest_of(text.encode())


def manifest_of(arrays: Mapping[str, NDArray[Any]], buffers: Iterable[str] = ()) -> Manifest:
    """The manifest of ``arrays`` (of any float type); ``buffers`` names those that are not trained."""
    averaged = set(buffers)
    return Manifest(
        arrays=tuple(
            ArraySpec(
                name=name,
                shape=tuple(int(n) for n in arrays[name].shape),
                role="buffer" if name in averaged else "parameter",
            )
            for name in sorted(arrays)
        )
    )


def flatten(arrays: Mapping[str, NDArray[Any]], manifest: Manifest) -> Vector:
    """Copies ``arrays`` into one float32 vector of ``manifest.values`` elements.

    Raises ``ValueError``, which names the array that is missing or does not have the manifest's shape.
    """
    vector = np.empty(manifest.values, dtype=np.float32)
    start = 0
    for spec in manifest.arrays:
        if spec.name not in arrays:
            raise ValueError(f"array {spec.name!r} is missing")
        array = arrays[spec.name]
        if tuple(array.shape) != spec.shape:
            raise ValueError(f"array {spec.name!r} has shape {tuple(array.shape)}, expected {spec.shape}")
        vector[start : start + spec.values] = array.reshape(-1)
        start += spec.values
    return vector


def unflatten(vector: Vector, manifest: Manifest) -> dict[str, Vector]:
    """Views of ``vector`` by array name, each in its shape. Raises ``ValueError`` if its length is wrong."""
    if vector.shape != (manifest.values,):
        raise ValueError(f"vector has shape {vector.shape}, expected ({manifest.values},)")
    arrays: dict[str, Vector] = {}
    start = 0
    for spec in manifest.arrays:
        arrays[spec.name] = vector[start : start + spec.values].reshape(spec.shape)
        start += spec.values
    return arrays


def magnitude(vector: Vector) -> float:
    """The largest magnitude in ``vector``; infinite or NaN if one of its values is. 0 for an empty vector.

    One pass for the minimum and one for the maximum of each block, which stays in the cache, without a temporary array;
    both are NaN if a value is NaN.
    """
    largest = 0.0
    for start in range(0, len(vector), MAGNITUDE_BLOCK):
        block = vector[start : start + MAGNITUDE_BLOCK]
        largest = max(float(block.max()), -float(block.min()), largest)
        if not math.isfinite(largest):
            break
    return largest
