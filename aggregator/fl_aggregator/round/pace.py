"""How long a round may take, and how many more edges it selects, from what the last rounds took. Pure.

Bonawitz et al. 2019 ("Towards Federated Learning at Scale", section 9) select more edges than a round needs, and close
it after a time; that both should follow from the edges is their section 11. An edge's seconds are counted by the
aggregator, from its selection to the acceptance of its update.

An edge that has not answered when its round closes has a time that is not known, but longer than it was waited for. So
quantiles are those of the estimator of Kaplan and Meier (1958), for observations of which some were cut off. If too
many were, the quantile lies beyond the longest wait, and the next deadline is later than that. Thus a deadline that
cuts off too many grows again. After an abandoned round nothing is known, and rounds begin as the first one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fl_aggregator.configuration.settings import Settings

MAX_SELECTED: Final = 2
"""At most this many times ``--per-round`` edges are selected."""
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTimes:
    """What the edges of a closed round took, in seconds since each was selected.

    ``accepted``: those whose update was accepted. ``waited``: how long the others that were online were waited for.
    ``failed``: how many edges dropped out, were offline, or had no update by the deadline.
    """

    accepted: tuple[float, ...]
    waited: tuple[float, ...]
    failed: int


def deadline(settings: Settings, times: Sequence[ResponseTimes]) -> float:
    """Returns the seconds that the next round may take: at most ``--deadline``, which the first one has.

    With a larger share of updates in the quorum than the quantile, that is the quantile.
    """
    pace = settings.parsed_pace
    if pace is None or not times:
        return settings.deadline
    share = max(pace.quantile, settings.effective_quorum / settings.per_round)
    seconds = quantile(times, share)
    if seconds is None:
        seconds = max(each for one in times for each in (*one.accepted, *one.waited))
    return min(settings.deadline, max(pace.shortest, round(pace.factor * seconds, 3)))


def over_selection(settings: Settings, times: Sequence[ResponseTimes]) -> int:
    """Returns how many more edges than ``--per-round`` the next round selects: ``--over-select`` for the first one.

    So many that the round gets all its updates if the same share of edges fails as in the last rounds.
    """
    accepted = sum(len(one.accepted) for one in times)
    if settings.parsed_pace is None or not accepted:
        return settings.over_select
    answered = accepted + sum(one.failed for one in times)
    needed = -(-settings.per_round * answered // accepted)  # rounded up, in integers
    return min(needed, MAX_SELECTED * settings.per_round, settings.clients) - settings.per_round


def quantile(times: Sequence[ResponseTimes], share: float) -> float | None:
    """Returns the seconds in which this share of the edges answers; null if that is longer than any wait was."""
    observed = [(seconds, False) for one in times for seconds in one.accepted]
    observed += [(seconds, True) for one in times for seconds in one.waited]
    silent = 1.0
    for index, (seconds, cut_off) in enumerate(sorted(observed)):
        if not cut_off:
            silent *= 1 - 1 / (len(observed) - index)
        if silent <= 1 - share + _TOLERANCE:
            return seconds
    return None
