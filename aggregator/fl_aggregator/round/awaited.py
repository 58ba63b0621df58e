"""The edges that an open round waits for, and when those that are offline count as absent. Pure.

Each of a thousand updates changes them, and after each it is asked how many are absent: neither looks at all of them.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fl_aggregator.round.persistent_map import PersistentMap
from fl_aggregator.round.roster import Roster


@dataclass(frozen=True, slots=True)
class Awaited:
    """The awaited edges.

    ``absent_at``: by edge, the run time from which it counts as absent, null while it is present (see
    `Roster.absent_at`). ``absences``: these times, ascending, and how many edges have each.
    """

    absent_at: PersistentMap[float | None] = field(default_factory=PersistentMap)
    absences: tuple[tuple[float, int], ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], roster: Roster, grace: float) -> Awaited:
        """Returns these edges as they are on the roster."""
        absent_at = {name: _absent_at(roster, name, grace) for name in names}
        absences = Counter(at for at in absent_at.values() if at is not None)
        return cls(PersistentMap(absent_at), tuple(sorted(absences.items())))

    def __contains__(self, name: object) -> bool:
        return name in self.absent_at

    def __iter__(self) -> Iterator[str]:
        return iter(self.absent_at)

    def __len__(self) -> int:
        return len(self.absent_at)

    def without(self, name: str) -> Awaited:
        """Returns the edges without one that has answered."""
        if name not in self:
            return self
        return Awaited(self.absent_at.without(name), self._counted(self.absent_at[name], -1))

    def follow(self, name: str, roster: Roster, grace: float) -> Awaited:
        """Returns the edges after one of them has come or gone."""
        if name not in self:
            return self
        at = _absent_at(roster, name, grace)
        absences = Awaited(self.absent_at, self._counted(self.absent_at[name], -1))._counted(at, 1)
        return Awaited(self.absent_at.with_value(name, at), absences)

    def count_absent(self, now: float) -> int:
        """Returns how many of the edges count as absent now."""
        return sum(number for at, number in self.absences if at <= now)

    def absence(self, count: int) -> float | None:
        """Returns the run time from which ``count`` edges are absent, if all stay as they are; null for never."""
        for at, number in self.absences:
            count -= number
            if count <= 0:
                return at
        return None

    def _counted(self, at: float | None, change: int) -> tuple[tuple[float, int], ...]:
        if at is None:
            return self.absences
        place = bisect.bisect_left(self.absences, (at, 0))
        found = place < len(self.absences) and self.absences[place][0] == at
        number = change + (self.absences[place][1] if found else 0)
        entry = ((at, number),) if number else ()
        return (*self.absences[:place], *entry, *self.absences[place + found :])


def _absent_at(roster: Roster, name: str, grace: float) -> float | None:
    client = roster.get(name)
    if client is not None and client.present and client.unable is None:
        return None
    return max(0.0, roster.absent_at(name, grace))  # run time begins at 0, and JSON has no -∞
