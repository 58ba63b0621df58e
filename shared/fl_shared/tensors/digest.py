"""Digests of manifests, models, updates and kept vectors: BLAKE3, 256 bits, in hex (protocol, 3.3 and 3.4).

BLAKE3 (github.com/BLAKE3-team/BLAKE3-specs) is two to three times as fast as SHA-256 with the processor's SHA
instructions, and more so without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fl_shared.errors import UserError

try:
    from blake3 import blake3
except ImportError as error:
    raise UserError(
        "the package blake3 is missing, which computes the digests of models and updates: pip install blake3; where "
        f"pip finds no wheel for this processor, it builds one and needs a Rust compiler (https://rustup.rs): {error}"
    ) from error


def digest_of(*parts: bytes | memoryview) -> str:
    """The digest of ``parts``, one after the other."""
    found = blake3()
    for part in parts:
        found.update(part)
    return found.hexdigest()


class ContentHash:
    """Computes the digest of a model or an update (protocol, 3.4) from its data in pieces of any length.

    ``sections`` are (name, encoding, manifest digest, number of bytes) in the order of their names.
    """

    def __init__(self, sections: Iterable[tuple[str, str, str, int]]) -> None:
        self._hash = blake3()
        self._sections = iter(sections)
        self._left = 0
        """Bytes of the current section that are still to come."""
        self.first = ""
        """The digest of the first section, as if it were the only one; empty until all of it has been added."""
        self._begin_section()

    def update(self, data: bytes | memoryview) -> None:
        """Adds the next bytes of all sections' data, in order. Raises ``ValueError`` if they are too many."""
        view = memoryview(data)
        while view:
            if self._left:
                self._hash.update(view[: self._left])
                taken = min(self._left, len(view))
                view, self._left = view[taken:], self._left - taken
                self._end_section()
            elif not self._begin_section():
                raise ValueError(f"{len(view)} bytes more than the sections have")

    def hexdigest(self) -> str:
        """The digest in hex, once all data has been added."""
        while not self._left and self._begin_section():
            pass  # empty sections at the end
        return self._hash.hexdigest()

    def digests(self) -> ContentDigests:
        """Both digests, once all data has been added."""
        return ContentDigests(self.hexdigest(), self.first)

    def _begin_section(self) -> bool:
        section = next(self._sections, None)
        if section is None:
            return False
        name, encoding, manifest_digest, self._left = section
        self._hash.update(f"{name}\0{encoding}\0{manifest_digest}\0{self._left}\0".encode())
        self._end_section()
        return True

    def _end_section(self) -> None:
        if not self._left and not self.first:
            self.first = self._hash.hexdigest()


def content_digest(sections: Iterable[tuple[str, str, str, bytes | memoryview]]) -> str:
    """The digest of a model or an update: BLAKE3 (hex) of its content (protocol, 3.4).

    ``sections`` are (name, encoding, manifest digest, data) in the order of their names; each contributes
    ``name NUL encoding NUL manifest-digest NUL length-as-decimal NUL data``.
    """
    return hashed(sections).content


@dataclass(frozen=True, slots=True)
class ContentDigests:
    """The digest of a ``content``, and that of its ``first`` section, as if it were the only one."""

    content: str
    first: str


def hashed(sections: Iterable[tuple[str, str, str, bytes | memoryview]]) -> ContentDigests:
    """Both digests of a content, in one pass over its data. ``sections``: see `content_digest`."""
    given = tuple(sections)
    content = ContentHash((name, encoding, manifest, len(data)) for name, encoding, manifest, data in given)
    for *_, data in given:
        content.update(data)
    return content.digests()
