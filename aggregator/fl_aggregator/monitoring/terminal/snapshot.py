"""What is known of a run at one moment, to the aggregator itself or to a watcher. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from fl_aggregator.monitoring.views.edge_states import EVALUATES_REASON
from fl_aggregator.monitoring.views.history_row import HistoryRow
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.two_machines import TWO_MACHINES
from fl_shared.protocol import messages as m
from fl_shared.system.reasons import by_reason
from fl_shared.system.text import natural_key, one_line

MAX_NAMED_PER_STATE: Final = 10
"""Number of edges in one state that are named."""
MAX_MACHINES: Final = 4
"""Number of kinds of machines that are named."""
ESTIMATE_ROUNDS: Final = 10
"""Number of the last rounds from which the remaining time is estimated."""


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """The number of edges in each state, and the first few of them with the reason, if there is one.

    ``round``: the round that they describe. For a watcher, it may be a second older than the status.
    ``evaluators``: the number of edges that are present and only evaluate, which no state counts.
    ``environments``: the number of edges in each, the most first. ``two_machines``: the first few ids that two machines
    use.
    """

    round: int | None = None
    counts: Mapping[m.EdgeStateName, int] = field(default_factory=dict)
    named: Mapping[m.EdgeStateName, tuple[tuple[str, str | None], ...]] = field(default_factory=dict)
    """Of those that are present, only the ones that are not ready are named."""
    not_ready: int = 0
    evaluators: int = 0
    environments: Mapping[m.Environment, int] = field(default_factory=dict)
    two_machines: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        edges: Iterable[tuple[str, m.EdgeStateName, str | None]],
        round_number: int | None,
        environments: Mapping[m.Environment, int],
    ) -> EdgeCounts:
        """Counts ``edges``, of which each has a name, a state and a reason or null."""
        counts: dict[m.EdgeStateName, int] = {}
        named: dict[m.EdgeStateName, list[tuple[str, str | None]]] = {}
        not_ready = evaluators = 0
        two: list[str] = []
        for name, state, said in sorted(edges, key=lambda edge: natural_key(edge[0])):
            reason = said
            if said is not None and said.startswith(TWO_MACHINES):
                two.append(name)
                reason = said.removeprefix(TWO_MACHINES).removeprefix("; ") or None
            if reason == EVALUATES_REASON:
                evaluators += 1
                continue
            counts[state] = counts.get(state, 0) + 1
            if state == "present":
                if reason is None:
                    continue
                not_ready += 1
            first_names = named.setdefault(state, [])
            if len(first_names) < MAX_NAMED_PER_STATE:
                first_names.append((name, reason))
        few = {state: tuple(names) for state, names in named.items()}
        first_two = tuple(two[:MAX_NAMED_PER_STATE])
        return cls(round_number, counts, few, not_ready, evaluators, environments, first_two)

    @property
    def evaluators_text(self) -> str:
        """The end of a list of counts: how many edges only evaluate. Empty if there are none."""
        return f", {self.evaluators} only evaluating" if self.evaluators else ""

    def __getitem__(self, state: m.EdgeStateName) -> int:
        return self.counts.get(state, 0)

    @property
    def computes_text(self) -> str:
        """What the edges compute with, if they differ in that; empty otherwise."""
        computes = _summed((one.computes, count) for one, count in self.environments.items())
        return "" if len(computes) < 2 else ", ".join(f"{name} ({count})" for name, count in computes)

    @property
    def machines_text(self) -> str:
        """On which machines the edges run, as they say, the most frequent ones; empty if none says that."""
        machines = _summed((one.machine, count) for one, count in self.environments.items() if one.machine)
        named, rest = machines[:MAX_MACHINES], sum(count for _, count in machines[MAX_MACHINES:])
        texts = [f"{name} ({count})" for name, count in named]
        return "; ".join([*texts, f"others ({rest})"] if rest else texts)

    @property
    def not_ready_text(self) -> str:
        """The edges that are connected and not ready, with the reasons; empty if there are none."""
        return names_of(self.named.get("present", ()), self.not_ready)

    def describe(self, state: m.EdgeStateName) -> str:
        """The edges in ``state`` as text: ``7 (its connection is lost), 9 and 3 more``.

        Empty if there are none.
        """
        return names_of(self.named.get(state, ()), self[state])


def _summed(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The texts, each once and safe for a terminal, with the sums of their counts, the greatest first."""
    sums: Counter[str] = Counter()
    for text, count in counts:
        sums[one_line(text)] += count
    return sums.most_common()


def names_of(first_names: Iterable[tuple[str, str | None]], count: int) -> str:
    """The first few of ``count`` names, grouped by reason, and how many more there are.

    ``first_names``: name and reason.
    """
    groups = by_reason((name, one_line(reason) if reason else None) for name, reason in first_names)
    texts = [", ".join(names) + (f" ({reason})" if reason else "") for names, reason in groups]
    more = count - sum(len(names) for names, _ in groups)
    return "; ".join(texts) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment. ``status``: the message on ``fl/status``.

    ``rows``: the rounds that have ended, evenly thinned if there are many. ``recent``: the last rounds, all
    of them, by number. ``waiting_text``: which edges the run waits for before a round opens. ``stalled``: its
    aggregator is offline or hangs, so nothing is estimated.
    """

    status: m.Status
    rows: tuple[HistoryRow, ...] = ()
    recent: Mapping[int, RoundRecord] = field(default_factory=dict)
    edge_counts: EdgeCounts | None = None
    waiting_text: str = ""
    stalled: bool = False

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status.phase in m.FINAL_PHASES

    @property
    def open_round_counts(self) -> EdgeCounts | None:
        """The counts of edges, if they describe the round that is open; else null."""
        status, counts = self.status, self.edge_counts
        is_open = counts is not None and status.phase in m.COLLECTING_PHASES and counts.round == status.round
        return counts if is_open else None

    def series(self, name: str) -> list[float]:
        """The measured values of a metric, in the order of their rounds."""
        return [row.metrics[name] for row in self.rows if name in row.metrics]

    @property
    def primary(self) -> m.MetricDeclaration:
        """The metric by which versions are compared."""
        return self.status.primary or m.LOSS

    def latest(self, name: str) -> float | None:
        """The newest measured value of a metric, null if there is none."""
        if name in self.status.metrics:
            return self.status.metrics[name]
        curve = self.series(name)
        return curve[-1] if curve else None

    @property
    def last_round(self) -> RoundRecord | None:
        """The round that ended last, null if none has ended."""
        return self.recent[max(self.recent)] if self.recent else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the present phase ends at the latest; null if nothing ends it, or nobody is at work on it."""
        return None if self.stalled or self.status.paused is not None else self.status.seconds_left

    def time_left(self) -> float | None:
        """Estimated seconds until the last version, if rounds take as long as the last few.

        Null when the run has ended or nobody is at work on it, or when no recent round made a version.
        """
        remaining = self.status.rounds - (self.status.version or 0)
        recent_rounds = [self.recent[number] for number in sorted(self.recent)[-ESTIMATE_ROUNDS:]]
        versions = sum(record.version is not None for record in recent_rounds)
        if self.ended or self.stalled or not versions or remaining <= 0:
            return None
        # An abandoned round takes its time and makes no version.
        return remaining * median(record.duration for record in recent_rounds) * len(recent_rounds) / versions
