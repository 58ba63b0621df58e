"""What was refused of all that arrived: how often, by edge and by reason; a word in the log now and then.

Two things end here: messages that were dropped before the machine saw them (`translate`, `codec`, `uploads`), and
what the machine answered with `Reject` or `Refuse`. However many names and messages a peer makes up, this stays
small, and so does the log.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from fl_shared.system.flood_control import is_worth_logging

LOG: Final = logging.getLogger(__name__)

UNKNOWN: Final = "(unknown)"
"""Whoever is not on the roster: anybody can make up names. No client can be called so."""
OTHERS: Final = "(others)"
MAX_COUNTED_EDGES: Final = 1000
"""So many edges are told apart; the others of a very large fleet are counted together."""
MAX_LOGGED_DETAIL: Final = 300
EXPECTED_REASONS: Final = frozenset({"late", "surplus", "no-round", "stale-round", "other-incarnation"})
"""Nobody's mistake: what comes of over-selection, of slow links, and of a start after an end."""

RejectionCounts = dict[str, dict[str, int]]
"""By client, and within that by reason."""


class Rejections:
    """Counts since this start of the aggregator: in all, and by the round in whose time it was.

    A round's time begins where that of the one before it ended, so that nothing falls between two rounds; what was
    before and during round 0, which has no line in the history, is the first one's.
    """

    def __init__(self) -> None:
        self._total: Counter[tuple[str, str]] = Counter()
        self._by_reason: Counter[str] = Counter()
        self._named_clients: set[str] = set()
        self._total_at_round_start: Counter[tuple[str, str]] = Counter()
        self._by_round: dict[int, RejectionCounts] = {}
        self._last_closed_round = 0

    def count(self, client: str | None, reason: str, detail: str, times: int = 1) -> None:
        """``client``: as the roster has it, or null. ``detail`` names the field, its value, what was expected."""
        who = self._label(client)
        before = self._total[who, reason]
        self._total[who, reason] = now = before + times
        self._by_reason[reason] += times
        if is_worth_logging(before, now):
            level = logging.INFO if reason in EXPECTED_REASONS else logging.WARNING
            LOG.log(
                level,
                "refused a message from %s (%s, %d so far): %s",
                who,
                reason,
                now,
                detail[:MAX_LOGGED_DETAIL],
            )

    def _label(self, client: str | None) -> str:
        if client is None:
            return UNKNOWN
        if client not in self._named_clients:
            if len(self._named_clients) >= MAX_COUNTED_EDGES:
                return OTHERS
            self._named_clients.add(client)
        return client

    def close_round(self, number: int) -> None:
        """Round ``number`` has ended; what was counted since the one before it is its own. Twice is once."""
        if number > self._last_closed_round:
            self._last_closed_round = number
            self._by_round[number] = _by_client(self._total - self._total_at_round_start)
            self._total_at_round_start = self._total.copy()

    def pop_round(self, number: int) -> RejectionCounts:
        """What was refused in a round that has ended; it is forgotten here."""
        return self._by_round.pop(number, {})

    def most_rejected(self, most: int) -> dict[str, int]:
        """Of whom most was refused that is somebody's mistake, or worse: at most so many, those with the most first."""
        sums: Counter[str] = Counter()
        for (who, reason), times in self._total.items():
            if reason not in EXPECTED_REASONS:
                sums[who] += times
        ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        return dict(ranked[:most])

    @property
    def total(self) -> RejectionCounts:
        return _by_client(self._total)

    @property
    def by_reason(self) -> dict[str, int]:
        """A copy; may be asked for in any thread."""
        return dict(self._by_reason)


def _by_client(counts: Counter[tuple[str, str]]) -> RejectionCounts:
    found: RejectionCounts = {}
    for (who, reason), times in sorted(counts.items()):
        found.setdefault(who, {})[reason] = times
    return found
