"""What can be seen of a run at one moment, whether by its aggregator or by who watches from afar. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from fl_aggregator.monitoring.views.round_record import HistoryRow, RoundRecord
from fl_shared.protocol import messages as m
from fl_shared.system.text import one_line

MAX_NAMED_PER_STATE: Final = 10
"""So many edges of a state are named."""
ESTIMATE_ROUNDS: Final = 10
"""Rounds from which the time that is left is estimated."""


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Edges by state: how many, and the first few of them with a reason, if there is one.

    ``round``: as they are in that one; what is heard from afar may be a second older than the status.
    """

    round: int | None = None
    counts: Mapping[m.EdgeStateName, int] = field(default_factory=dict)
    named: Mapping[m.EdgeStateName, tuple[tuple[str, str | None], ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, edges: Iterable[tuple[str, m.EdgeStateName, str | None]], round_number: int | None
    ) -> EdgeCounts:
        """``edges``: name, state and why."""
        counts: dict[m.EdgeStateName, int] = {}
        named: dict[m.EdgeStateName, list[tuple[str, str | None]]] = {}
        for name, state, why in edges:
            counts[state] = counts.get(state, 0) + 1
            few = named.setdefault(state, [])
            if len(few) < MAX_NAMED_PER_STATE:
                few.append((name, why))
        return cls(round_number, counts, {state: tuple(few) for state, few in named.items()})

    def __getitem__(self, state: m.EdgeStateName) -> int:
        return self.counts.get(state, 0)

    def describe(self, state: m.EdgeStateName, *, why: bool = True) -> str:
        """``7 (its connection is lost), 9 and 3 more``; empty for nobody."""
        return names_of(self.named.get(state, ()), self[state], why=why)


def names_of(few: Iterable[tuple[str, str | None]], count: int, *, why: bool = True) -> str:
    """The first few of ``count`` names, those with the same reason together, and how many there are beyond them."""
    by_reason: dict[str | None, list[str]] = {}
    for name, reason in few:
        by_reason.setdefault(one_line(reason) if why and reason else None, []).append(name)
    said = [", ".join(names) + (f" ({reason})" if reason else "") for reason, names in by_reason.items()]
    more = count - sum(map(len, by_reason.values()))
    return "; ".join(said) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``status``: as it is on ``fl/status``. ``rows``: rounds that have ended, evenly thinned where there are many.

    ``recent``: the last few by number, none left out. ``waiting``: for whom, in words, before a round opens.
    """

    status: m.Status
    rows: tuple[HistoryRow, ...] = ()
    recent: Mapping[int, RoundRecord] = field(default_factory=dict)
    edge_counts: EdgeCounts | None = None
    waiting_text: str = ""

    @property
    def ended(self) -> bool:
        return self.status.phase in m.FINAL_PHASES

    @property
    def open_round_counts(self) -> EdgeCounts | None:
        """The crowd, if it is that of the round which is open."""
        status, crowd = self.status, self.edge_counts
        is_open = crowd is not None and status.phase == "collecting" and crowd.round == status.round
        return crowd if is_open else None

    def series(self, name: str) -> list[float]:
        """The values of ``accuracy``, ``loss`` or ``train_loss`` that there are, in order."""
        return [value for row in self.rows if (value := getattr(row, name)) is not None]

    @property
    def accuracy(self) -> float | None:
        """The newest that was measured."""
        return self._latest_metric("accuracy")

    @property
    def loss(self) -> float | None:
        return self._latest_metric("loss")

    def _latest_metric(self, name: str) -> float | None:
        if name in self.status.metrics:
            return self.status.metrics[name]
        curve = self.series(name)
        return curve[-1] if curve else None

    @property
    def last_round(self) -> RoundRecord | None:
        """The round that ended last."""
        return self.recent[max(self.recent)] if self.recent else None

    def time_left(self) -> float | None:
        """Seconds until the last version, if rounds go on as the last few did; null before the first."""
        left = self.status.rounds - (self.status.version or 0)
        lately = [self.recent[number] for number in sorted(self.recent)[-ESTIMATE_ROUNDS:]]
        made = sum(record.version is not None for record in lately)
        if self.ended or not made or left <= 0:
            return None
        # An abandoned round costs its time, and makes nothing.
        return left * median(record.duration for record in lately) * len(lately) / made
