"""Where the parameters and the buffers of a vector are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fl_shared.tensors.manifest import Manifest

Span = tuple[int, int]
"""The first of some consecutive values of a vector, and the one after the last."""

BLOCK: Final = 16_384
"""Values of each update that are read at a time, if they are not many."""
_AT_ONCE: Final = 200 * BLOCK
"""Values of all updates that are read at a time."""
_LEAST: Final = 256


def spans(manifest: Manifest, *, buffers: bool) -> list[Span]:
    """Returns where the buffers of a vector are, or where its parameters are, in ascending order."""
    found: list[Span] = []
    start = 0
    for array in manifest.arrays:
        stop = start + array.values
        if (array.role == "buffer") == buffers and stop > start:
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, stop))
        start = stop
    return found


def blocks(where: Sequence[Span], most: int = BLOCK) -> Iterator[Span]:
    """Yields the spans in pieces of at most ``most`` values."""
    for start, stop in where:
        for first in range(start, stop, most):
            yield first, min(first + most, stop)


def block_of(updates: int) -> int:
    """Returns how many values of each of so many updates are read at a time, so that memory has a bound."""
    return max(_LEAST, min(BLOCK, _AT_ONCE // max(1, updates)))
