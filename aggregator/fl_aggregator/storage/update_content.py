"""The sections of an update, on their way to validation, the spool and the fold."""

from __future__ import annotations

from dataclasses import dataclass, field

from fl_shared.protocol.messages import Update
from fl_shared.tensors.digest import ContentDigests
from fl_shared.tensors.manifest import ArraySpec


@dataclass(frozen=True, slots=True)
class SectionContent:
    """A section as it arrived. ``arrays`` is null unless the section describes itself (in round 0)."""

    name: str
    encoding: str
    manifest: str
    arrays: tuple[ArraySpec, ...] | None
    data: memoryview = field(repr=False)

    @property
    def size(self) -> int:
        """The length of the data, in bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class UpdateContent:
    """The digest that an update states, and its sections, whether it arrived whole or in chunks."""

    digest: str
    sections: tuple[SectionContent, ...]
    known: ContentDigests | None = None
    """The digests of the sections' data, if they have been computed already."""

    @classmethod
    def of(cls, update: Update) -> UpdateContent:
        """The content of an update that arrived whole. The sections are views of the message's bytes."""
        return cls(
            update.digest,
            tuple(
                SectionContent(s.name, s.encoding, s.manifest, s.arrays, memoryview(s.data))
                for s in update.sections
            ),
        )
