"""Whether an update's bytes are what it says, and may be folded."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from fl_aggregator.aggregation.exact_sum import magnitude
from fl_aggregator.storage.update_content import Content, SectionContent
from fl_shared.protocol.messages import FoldSettings, RejectionReason
from fl_shared.tensors.manifest import WIRE_DTYPE, Manifest, Vector, content_digest


class InvalidUpdate(Exception):
    """An update cannot be used; the text names the field, the value and what was expected."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectionReason = reason


def weights_of(update: Content, manifest: Manifest, caps: FoldSettings) -> tuple[Vector, float]:
    """The delta that an update carries, shape (manifest.values,), and its magnitude. Raises ``InvalidUpdate``."""
    vector = _vector(update, manifest)
    largest = magnitude(vector)
    if not np.isfinite(largest):
        raise InvalidUpdate("not-finite", f"weights: {_not_finite_in(vector, manifest)}")
    if largest > caps.max_delta:
        raise InvalidUpdate(
            "too-large",
            f"weights: a value of magnitude {largest:g}, expected at most {caps.max_delta:g} (--max-delta)",
        )
    return vector, largest


def first_weights_of(update: Content, expected: str | None) -> tuple[Manifest, Vector]:
    """Round 0's whole weights and their manifest (its digest ``expected``, if given). Raises ``InvalidUpdate``."""
    section = _weights_section(update)
    if section.arrays is None:
        raise InvalidUpdate("wrong-manifest", "weights.arrays: missing, expected in initial weights")
    try:
        manifest = Manifest(arrays=section.arrays)
    except ValidationError as error:
        raise InvalidUpdate("wrong-manifest", f"weights.arrays: {error.errors()[0]['msg']}") from None
    if expected is not None and manifest.digest != expected:
        detail = f"weights.arrays: their manifest is {manifest.digest[:12]}, expected {expected[:12]}"
        raise InvalidUpdate("wrong-manifest", detail)
    vector = _vector(update, manifest)
    if not np.isfinite(vector).all():
        raise InvalidUpdate("not-finite", f"weights: {_not_finite_in(vector, manifest)}")
    return manifest, vector


def _weights_section(update: Content) -> SectionContent:
    names = [section.name for section in update.sections]
    if names != ["weights"]:
        raise InvalidUpdate("wrong-manifest", f"sections: {names}, expected ['weights']")
    return update.sections[0]


def _vector(update: Content, manifest: Manifest) -> Vector:
    section = _weights_section(update)
    expected = manifest.values * WIRE_DTYPE.itemsize
    if len(section.data) != expected:
        raise InvalidUpdate("wrong-size", f"weights.data: {len(section.data)} bytes, expected {expected}")
    if section.manifest != manifest.digest:
        raise InvalidUpdate(
            "wrong-manifest", f"weights.manifest: {section.manifest[:12]}, expected {manifest.digest[:12]}"
        )
    digest = update.found or content_digest(
        [(section.name, section.encoding, section.manifest, section.data)]
    )
    if digest != update.digest:
        raise InvalidUpdate(
            "wrong-digest", f"digest: {update.digest[:12]}, but the content has {digest[:12]}"
        )
    return np.frombuffer(section.data, dtype=WIRE_DTYPE)


def _not_finite_in(vector: Vector, manifest: Manifest) -> str:
    index = int(np.flatnonzero(~np.isfinite(vector))[0])
    value = float(vector[index])
    for array in manifest.arrays:
        if index < array.values:
            break
        index -= array.values
    return f"element {index} of {array.name!r} is {value}, expected a finite number"
