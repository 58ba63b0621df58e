"""What an update brings, on its way to the check, the spool and the sum."""

from __future__ import annotations

from dataclasses import dataclass, field

from fl_shared.protocol.messages import Update
from fl_shared.tensors.manifest import ArraySpec


@dataclass(frozen=True, slots=True)
class SectionContent:
    """A section as it came; ``arrays`` where it says what it is (round 0)."""

    name: str
    encoding: str
    manifest: str
    arrays: tuple[ArraySpec, ...] | None
    data: memoryview = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class UpdateContent:
    """All that an update brings, whole or in chunks."""

    digest: str
    sections: tuple[SectionContent, ...]
    known_digest: str | None = None
    """The digest that it has, where that is known already; else it is computed."""

    @classmethod
    def of(cls, update: Update) -> UpdateContent:
        """An update that came whole. Nothing is copied."""
        return cls(
            update.digest,
            tuple(
                SectionContent(s.name, s.encoding, s.manifest, s.arrays, memoryview(s.data))
                for s in update.sections
            ),
        )
