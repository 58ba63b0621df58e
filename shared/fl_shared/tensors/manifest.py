"""Named arrays ↔ one flat float32 vector and its manifest.

A *section* of a model or an update (``weights``, say) is ONE contiguous float32 vector; its encoding makes bytes of it.
Its *manifest* says which arrays lie in it: name, shape and role, in the order of their names, each beginning
where the one before it ends. Folding, checking and sending then are single passes over one buffer.
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

ArrayRole = Literal["parameter", "buffer"]
"""A parameter is learnt (optimisers, clipping and distances use these only); a buffer (running mean) is averaged."""

Dimension = Annotated[int, Field(ge=0, le=MAX_VALUES)]


class ArraySpec(BaseModel):
    """One array of a section: ``shape`` in elements, row-major."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=256)]
    shape: Annotated[tuple[Dimension, ...], Field(max_length=16)]
    role: ArrayRole = "parameter"

    @property
    def values(self) -> int:
        return math.prod(self.shape)


class Manifest(BaseModel):
    """Which arrays a section holds. Names are unique and ascending, so that a manifest has one spelling."""

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
        """Elements in the whole section."""
        return sum(array.values for array in self.arrays)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON ``[[name, [shape…], role], …]``."""
        rows = [[a.name, list(a.shape), a.role] for a in self.arrays]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def manifest_of(arrays: Mapping[str, NDArray[Any]], buffers: Iterable[str] = ()) -> Manifest:
    """The manifest of ``arrays`` (any float arrays; ``buffers`` names those that are not learnt)."""
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
    """Pack ``arrays`` into one float32 vector of ``manifest.values`` elements.

    Raises ``ValueError`` naming the array that is missing or has another shape than the manifest says.
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
    """Views into ``vector``, by name, in their shapes. Raises ``ValueError`` if its length does not fit."""
    if vector.shape != (manifest.values,):
        raise ValueError(f"vector has shape {vector.shape}, expected ({manifest.values},)")
    arrays: dict[str, Vector] = {}
    start = 0
    for spec in manifest.arrays:
        arrays[spec.name] = vector[start : start + spec.values].reshape(spec.shape)
        start += spec.values
    return arrays


def magnitude(vector: Vector) -> float:
    """The largest magnitude in ``vector``; not a finite number if one of its values is not.

    One pass each for both extremes, without a temporary array; those of a vector with a NaN are NaN.
    """
    return max(float(vector.max(initial=0.0)), -float(vector.min(initial=0.0)))


class ContentHash:
    """The digest of a model's or an update's content (protocol, 3.4), from its data in pieces of any length.

    ``sections`` are (name, encoding, manifest digest, bytes of data) in the order of their names.
    """

    def __init__(self, sections: Iterable[tuple[str, str, str, int]]) -> None:
        self._sha = hashlib.sha256()
        self._sections = iter(sections)
        self._left = 0
        """Bytes that the section still lacks."""

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes of the data of all sections, one after the other. Raises ``ValueError`` for too many."""
        view = memoryview(data)
        while view:
            if self._left:
                self._sha.update(view[: self._left])
                taken = min(self._left, len(view))
                view, self._left = view[taken:], self._left - taken
            elif not self._begin_section():
                raise ValueError(f"{len(view)} bytes more than the sections have")

    def hexdigest(self) -> str:
        """When all data has been given."""
        while not self._left and self._begin_section():
            pass  # sections without a byte, at the end
        return self._sha.hexdigest()

    def _begin_section(self) -> bool:
        section = next(self._sections, None)
        if section is None:
            return False
        name, encoding, manifest_digest, self._left = section
        self._sha.update(f"{name}\0{encoding}\0{manifest_digest}\0{self._left}\0".encode())
        return True


def content_digest(sections: Iterable[tuple[str, str, str, bytes | memoryview]]) -> str:
    """SHA-256 (hex) of a model's or an update's content.

    ``sections`` are (name, encoding, manifest digest, data) in the order of their names; each contributes
    ``name NUL encoding NUL manifest-digest NUL length-as-decimal NUL data``.
    """
    given = tuple(sections)
    content = ContentHash((name, encoding, manifest, len(data)) for name, encoding, manifest, data in given)
    for *_, data in given:
        content.update(data)
    return content.hexdigest()
