"""Counts what was refused, by edge and by reason, and logs some of it.

Two kinds of messages are counted: those that were dropped before the machine saw them (`translate`, `codec`,
`uploads`), and those that the machine answered with `Reject` or `Refuse`. However many names and messages a
peer makes up, the counts and the log stay small.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from fl_shared.system.flood_control import is_worth_logging
from fl_shared.system.text import natural_key

LOG: Final = logging.getLogger(__name__)

UNKNOWN: Final = "(unknown)"
"""Stands for messages that name no client, and for clients that are not on the roster beyond the first
`MAX_COUNTED_STRANGERS`, since names can be made up. No client has this id."""
OTHERS: Final = "(others)"
"""Stands for all edges beyond the first `MAX_COUNTED_EDGES`."""
MAX_COUNTED_EDGES: Final = 1000
"""Edges that are counted one by one; the others of a very large fleet are counted together."""
MAX_COUNTED_STRANGERS: Final = 100
"""Clients that are not on the roster and are counted one by one."""
MAX_LOGGED_DETAIL: Final = 300
"""Characters of a detail in the log."""
EXPECTED_REASONS: Final = frozenset({"late", "surplus", "no-round", "stale-round", "other-incarnation"})
"""Reasons without a mistake: they result from over-selection, slow links, and resumed runs."""

RejectionCounts = dict[str, dict[str, int]]
"""By client, and then by reason."""


class Rejections:
    """The counts since this start of the aggregator: in total, and by round.

    The count of a round begins where that of the round before it ended, so that nothing is left out. What
    came before and during round 0, which has no line in the history, is counted in the first round.
    """

    def __init__(self) -> None:
        self._total: Counter[tuple[str, str]] = Counter()
        self._by_reason: Counter[str] = Counter()
        self._named_clients: set[str] = set()
        self._named_strangers: set[str] = set()
        self._total_at_round_start: Counter[tuple[str, str]] = Counter()
        self._by_round: dict[int, RejectionCounts] = {}
        self._last_closed_round = 0

    def count(
        self, client: str | None, reason: str, detail: str, count: int = 1, *, known: bool = True
    ) -> None:
        """Counts refused messages of a client, and logs some of them.

        ``client`` is null if the message names none, ``known`` says whether it is on the roster. ``detail``
        names the field, its value, and what was expected.
        """
        label = self._label(client, known=known)
        previous = self._total[label, reason]
        self._total[label, reason] = total = previous + count
        self._by_reason[reason] += count
        if is_worth_logging(previous, total):
            level = logging.INFO if reason in EXPECTED_REASONS else logging.WARNING
            LOG.log(
                level,
                "refused a message from %s (%s, %d so far): %s",
                label,
                reason,
                total,
                detail[:MAX_LOGGED_DETAIL],
            )

    def _label(self, client: str | None, *, known: bool) -> str:
        if client is None:
            return UNKNOWN
        if not known:
            if len(self._named_strangers) < MAX_COUNTED_STRANGERS:
                self._named_strangers.add(client)
            return client if client in self._named_strangers else UNKNOWN
        if client not in self._named_clients:
            if len(self._named_clients) >= MAX_COUNTED_EDGES:
                return OTHERS
            self._named_clients.add(client)
        return client

    def close_round(self, number: int) -> None:
        """Ends the count of round ``number``, which covers everything since the round before it.

        A second call for the same round does nothing.
        """
        if number > self._last_closed_round:
            self._last_closed_round = number
            self._by_round[number] = _by_client(self._total - self._total_at_round_start)
            self._total_at_round_start = self._total.copy()

    def pop_round(self, number: int) -> RejectionCounts:
        """Returns the counts of a round that has ended, and forgets them."""
        return self._by_round.pop(number, {})

    def most_rejected(self, limit: int) -> dict[str, int]:
        """Returns the edges with most refused messages, and how many, in descending order.

        `EXPECTED_REASONS` do not count.
        """
        totals: Counter[str] = Counter()
        for (client, reason), count in self._total.items():
            if reason not in EXPECTED_REASONS:
                totals[client] += count
        ranked = sorted(totals.items(), key=lambda item: (-item[1], natural_key(item[0])))
        return dict(ranked[:limit])

    @property
    def total(self) -> RejectionCounts:
        """All counts since this start of the aggregator."""
        return _by_client(self._total)

    @property
    def by_reason(self) -> dict[str, int]:
        """A copy of the counts by reason alone; may be read on any thread."""
        return dict(self._by_reason)


def _by_client(counts: Counter[tuple[str, str]]) -> RejectionCounts:
    nested: RejectionCounts = {}
    for (client, reason), count in sorted(
        counts.items(), key=lambda item: (natural_key(item[0][0]), item[0][1])
    ):
        nested.setdefault(client, {})[reason] = count
    return nested
