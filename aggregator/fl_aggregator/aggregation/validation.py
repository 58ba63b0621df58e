"""Checks whether updates contain the sections that their round expects, and may be folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from fl_aggregator.aggregation.regional_sum import RegionalSum, SumCaps, SumTooLarge, is_sum
from fl_aggregator.round.events import UpdateInvalid, UpdateMetadata
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.masking.shares import SharesSection
from fl_shared.protocol.messages import RejectionReason
from fl_shared.tensors.digest import ContentDigests, hashed
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.integers import SUM
from fl_shared.tensors.encodings.interface import BLOCK, MalformedError, NotFiniteError, TooLargeError
from fl_shared.tensors.encodings.section import SectionFormat, Values
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import DELTA, LARGE
from fl_shared.transfer.publication import MAX_MODEL_BYTES


class InvalidUpdate(Exception):
    """An update cannot be used; the message names the field, its value and what was expected."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectionReason = reason

    def event(self, update: UpdateMetadata, now: float) -> UpdateInvalid:
        """Returns what that means for the round."""
        return UpdateInvalid(
            now=now,
            client=update.client,
            session=update.session,
            round=update.round,
            digest=update.digest,
            reason=self.reason,
            detail=str(self),
        )


class Described(Protocol):
    """The description of a section in an offer or in an update."""

    @property
    def name(self) -> str:
        """The name of the section, such as ``delta``."""
        ...

    @property
    def encoding(self) -> str:
        """The name of the encoding of its values."""
        ...

    @property
    def manifest(self) -> str:
        """The digest of its manifest."""
        ...

    @property
    def arrays(self) -> tuple[ArraySpec, ...] | None:
        """The arrays of its manifest, which only initial weights have to list."""
        ...

    @property
    def size(self) -> int:
        """The bytes of its data."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedSection:
    """A section that was checked.

    ``values`` are as many as the manifest has, and a view of the checked bytes, or decoded from them block by block.
    """

    values: Values
    magnitude: float
    """An upper bound of the magnitudes of the values."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckedMasked:
    """A masked update: the bytes of ``delta`` and ``tallies``, which are views; its shares; and its body, hex."""

    delta: memoryview
    tallies: memoryview
    shares: SharesSection
    body: str


@dataclass(frozen=True, slots=True)
class CheckedUpdate:
    """An update that was checked and may be folded."""

    manifest: Manifest
    sections: Mapping[str, CheckedSection]
    total: RegionalSum | None = None
    """If it is the sum of a regional aggregator, which has no other ``sections``."""
    masked: CheckedMasked | None = None
    """If it is masked; it has no other ``sections`` then."""

    @property
    def delta(self) -> CheckedSection:
        """The section that is folded."""
        return self.sections[DELTA]


@dataclass(frozen=True, slots=True)
class ExpectedUpdate:
    """What each update of a round must contain: these sections, in ascending order; ``delta`` is in ``encoding``.

    The others are float32: what edges and aggregator keep of them must be the same (protocol, 5.12). ``manifest`` is
    that of each section; it is null in round 0, where the update says which arrays the model has. ``max_delta`` is the
    largest magnitude of a parameter's value, ``max_buffer`` that of a buffer's; infinity
    allows any finite one. ``sums``: the caps of the sums of regional aggregators; null if there are none.
    ``is_private``: a rejection says nothing of the edge's values, since others than the edge hear it.
    """

    sections: tuple[str, ...]
    encoding: str
    manifest: Manifest | None
    max_delta: float
    max_buffer: float
    sums: SumCaps | None = None
    is_private: bool = False

    def check_plan(self, plan: str | None) -> None:
        """Does nothing: only masked updates have a plan."""

    def _encoding_of(self, section: str) -> str:
        return self.encoding if section == DELTA else FLOAT32.name

    def check_description(self, sections: Sequence[Described]) -> Manifest:
        """Checks all of an update except data and digest; returns the manifest of its sections.

        Raises `InvalidUpdate`.
        """
        names = [section.name for section in sections]
        is_total = self.sums is not None and is_sum(names) and sections[0].encoding == SUM.name
        if not is_total and names != list(self.sections):
            raise InvalidUpdate("wrong-manifest", f"sections: {names}, expected {list(self.sections)}")
        manifest = self.manifest or _described_by(sections[names.index(DELTA)])
        for section in sections:
            encoding = SUM.name if is_total else self._encoding_of(section.name)
            if section.encoding != encoding:
                detail = f"{section.name}.encoding: {section.encoding!r}, expected {encoding!r} as selected"
                raise InvalidUpdate("wrong-encoding", detail)
            if problem := SectionFormat.of(encoding, manifest).size_problem(section.size):
                raise InvalidUpdate("wrong-size", f"{section.name}.data: {problem}")
            if section.manifest != manifest.digest:
                detail = f"{section.name}.manifest: {section.manifest[:12]}, expected {manifest.digest[:12]}"
                raise InvalidUpdate("wrong-manifest", detail)
        return manifest

    def check(self, update: UpdateContent, edges: int = 1) -> CheckedUpdate:
        """Checks all of an update, or of the sum of those of ``edges``, and decodes it. Raises `InvalidUpdate`."""
        manifest = self.check_description(update.sections)
        check_digest(update)
        if update.sections[0].encoding == SUM.name:
            return CheckedUpdate(manifest, {}, self._check_sum(update, manifest, edges))
        checked = {}
        for section in update.sections:
            form = SectionFormat.of(section.encoding, manifest)
            try:
                largest = form.check(section.data, min(self.max_delta, self.max_buffer))
            except MalformedError as error:
                raise InvalidUpdate("malformed", f"{section.name}.data: {error}") from None
            except NotFiniteError as error:
                value = f"{_place(manifest, error.index)} is {error.value}, expected a finite number"
                detail = f"{section.name}: {'expected finite numbers' if self.is_private else value}"
                raise InvalidUpdate("not-finite", detail) from None
            except TooLargeError as error:
                largest = error.magnitude
                self._check_arrays(section.name, form.values_in(section.data), manifest)
            checked[section.name] = CheckedSection(form.values_in(section.data), largest)
        return CheckedUpdate(manifest, checked)

    def _check_sum(self, update: UpdateContent, manifest: Manifest, edges: int) -> RegionalSum:
        data = {section.name: SUM.integers(section.data) for section in update.sections}
        total = RegionalSum.of(data[DELTA], data.get(LARGE))
        assert self.sums is not None, "its description has been checked"
        try:
            self.sums.check(total, manifest, edges)
        except SumTooLarge as error:
            raise InvalidUpdate("too-large", str(error)) from None
        return total

    def _check_arrays(self, section: str, values: Values, manifest: Manifest) -> None:
        """Compares the values of each array with the cap of its role. Raises `InvalidUpdate`."""
        start = 0
        for spec in manifest.arrays:
            cap, option = (
                (self.max_buffer, "--max-buffer")
                if spec.role == "buffer"
                else (self.max_delta, "--max-delta")
            )
            element, largest = _largest(values, start, start + spec.values)
            start += spec.values
            if largest > cap:
                place = f"element {element} of {spec.name!r}"
                detail = f"{section}: {place}: a value of magnitude {largest:g}, expected at most {cap:g} ({option})"
                raise InvalidUpdate("too-large", detail)


def check_digest(update: UpdateContent) -> ContentDigests:
    """Returns the digests of an update's content. Raises `InvalidUpdate` unless it has the one that it states."""
    digests = update.known or hashed(
        (section.name, section.encoding, section.manifest, section.data) for section in update.sections
    )
    if digests.content != update.digest:
        raise InvalidUpdate(
            "wrong-digest", f"digest: {update.digest[:12]}, but the content has {digests.content[:12]}"
        )
    return digests


def _largest(values: Values, start: int, stop: int) -> tuple[int, float]:
    """Returns the largest magnitude between two places, and how far behind the first it is."""
    index, largest = 0, 0.0
    for first in range(start, stop, BLOCK):
        magnitudes = np.abs(values[first : min(first + BLOCK, stop)])
        at = int(magnitudes.argmax())
        if magnitudes[at] > largest:
            index, largest = first - start + at, float(magnitudes[at])
    return index, largest


def _described_by(section: Described) -> Manifest:
    """Returns the manifest of the arrays that initial weights list. Raises `InvalidUpdate`."""
    if section.arrays is None:
        raise InvalidUpdate("wrong-manifest", f"{section.name}.arrays: missing, expected in initial weights")
    try:
        manifest = Manifest(arrays=section.arrays)
    except ValidationError as error:
        raise InvalidUpdate("wrong-manifest", f"{section.name}.arrays: {error.errors()[0]['msg']}") from None
    size = FLOAT32.size(manifest.values)
    if size > MAX_MODEL_BYTES:
        raise InvalidUpdate(
            "wrong-size", f"{section.name}.data: {size} bytes, expected at most {MAX_MODEL_BYTES}"
        )
    return manifest


def _place(manifest: Manifest, index: int) -> str:
    """Names the value at ``index`` of a section, by its array."""
    for array in manifest.arrays:
        if index < array.values:
            break
        index -= array.values
    return f"element {index} of {array.name!r}"
