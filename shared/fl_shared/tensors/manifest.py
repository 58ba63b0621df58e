"""Converts named arrays to one flat float32 vector with a manifest, and back.

A *section* of a model or an update (for example ``weights``) is ONE contiguous float32 vector, which its
encoding turns into bytes. Its *manifest* lists the arrays in it with name, shape and role, in ascending order
of names; each array begins where the one before it ends. So folding, checking and sending are single passes
over one buffer.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Vector = NDArray[np.float32]
"""A flat vector, shape (values,), float32."""

MAX_ARRAYS: Final = 20_000
MAX_VALUES: Final = 2**33
MAX_NAME: Final = 256
"""Characters of an array's name."""
MAX_DIMENSIONS: Final = 16

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

    @property
    def values(self) -> int:
        """The number of elements of the whole section."""
        return sum(array.values for array in self.arrays)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON ``[[name, [shape…], role], …]``."""
        rows = [[a.name, list(a.shape), a.role] for a in self.arrays]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


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

    One pass for the minimum and one for the maximum, without a temporary array; both are NaN if a value is
    NaN.
    """
    return max(float(vector.max(initial=0.0)), -float(vector.min(initial=0.0)))


class ContentHash:
    """Computes the digest of a model or an update (protocol, 3.4) from its data in pieces of any length.

    ``sections`` are (name, encoding, manifest digest, number of bytes) in the order of their names.
    """

    def __init__(self, sections: Iterable[tuple[str, str, str, int]]) -> None:
        self._sha = hashlib.sha256()
        self._sections = iter(sections)
        self._left = 0
        """Bytes of the current section that are still to come."""

    def update(self, data: bytes | memoryview) -> None:
        """Adds the next bytes of all sections' data, in order. Raises ``ValueError`` if they are too many."""
        view = memoryview(data)
        while view:
            if self._left:
                self._sha.update(view[: self._left])
                taken = min(self._left, len(view))
                view, self._left = view[taken:], self._left - taken
            elif not self._begin_section():
                raise ValueError(f"{len(view)} bytes more than the sections have")

    def hexdigest(self) -> str:
        """The digest in hex, once all data has been added."""
        while not self._left and self._begin_section():
            pass  # empty sections at the end
        return self._sha.hexdigest()

    def _begin_section(self) -> bool:
        section = next(self._sections, None)
        if section is None:
            return False
        name, encoding, manifest_digest, self._left = section
        self._sha.update(f"{name}\0{encoding}\0{manifest_digest}\0{self._left}\0".encode())
        return True


def content_digest(sections: Iterable[tuple[str, str, str, bytes | memoryview]]) -> str:
    """The digest of a model or an update: SHA-256 (hex) of its content (protocol, 3.4).

    ``sections`` are (name, encoding, manifest digest, data) in the order of their names; each contributes
    ``name NUL encoding NUL manifest-digest NUL length-as-decimal NUL data``.
    """
    given = tuple(sections)
    content = ContentHash((name, encoding, manifest, len(data)) for name, encoding, manifest, data in given)
    for *_, data in given:
        content.update(data)
    return content.hexdigest()
