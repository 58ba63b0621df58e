"""Where an edge runs: its software and its machine, for people who look for the reason of a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import StringConstraints

from fl_shared.protocol.kinds.base import Count, Fragment
from fl_shared.system.text import size_text

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

    @property
    def machine(self) -> str:
        """The machine and the version of our own software, for people; empty if neither is known."""
        cores = None if self.cores is None else f"{self.cores} core{'' if self.cores == 1 else 's'}"
        memory = None if self.memory is None else size_text(self.memory)
        ours = None if self.fl_mqtt is None else f"fl-mqtt {self.fl_mqtt}"
        return ", ".join(part for part in (self.platform, cores, memory, ours) if part is not None)


def environment_counts(
    environments: Sequence[Environment], indices: Iterable[int | None]
) -> dict[Environment, int]:
    """How many edges have which environment, the most first. ``indices``: for each edge, of its own, or null."""
    counts = Counter(
        environments[index] for index in indices if index is not None and index < len(environments)
    )
    return dict(counts.most_common())
