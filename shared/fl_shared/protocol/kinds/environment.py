"""Where an edge runs: its software and its machine, for people who look for the reason of a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import StringConstraints

from fl_shared.protocol.kinds.base import Count, Fragment

MAX_ENVIRONMENTS: Final = 256
"""The most distinct environments that a run remembers; edges beyond them are without one."""
Description = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,64}$")]
"""Printable ASCII: the version of a program, or the name of a platform."""


class Environment(Fragment):
    """The software and the machine of an edge, as it says itself; a member is null if it is not known.

    ``library``: what computes, with its version, such as ``torch 2.9.0+cpu`` or ``numpy 2.3.4``. ``platform``: the
    operating system and the machine, such as ``Linux x86_64``. ``memory``: bytes of the machine. ``cores``: those that
    the edge may use.
    """

    fl_mqtt: Description | None = None
    python: Description | None = None
    library: Description | None = None
    platform: Description | None = None
    memory: Count | None = None
    cores: Count | None = None

    @property
    def computes(self) -> str:
        """What the bits of an update depend on, besides its data and settings, for people."""
        return f"{self.library or 'unknown software'} on {self.platform or 'an unknown platform'}"


def computes_counts(environments: Sequence[Environment], indices: Iterable[int | None]) -> dict[str, int]:
    """How many edges compute with what, the most first. ``indices``: for each edge, of its environment, or null."""
    counts = Counter(
        environments[index].computes for index in indices if index is not None and index < len(environments)
    )
    return dict(counts.most_common())
