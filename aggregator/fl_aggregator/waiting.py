"""Waiting for edges: for whom, how long yet, and who was sent away; said now and then, ever more rarely."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fl_aggregator import views
from fl_aggregator.round import effects as do
from fl_aggregator.round.roster import own_part
from fl_aggregator.round.state import Evaluating, Run, Selecting

FIRST: Final = 3.0
"""Seconds of waiting after which it is said for the first time; then after twice as many, and so on."""
RAREST: Final = 60.0
AT_MOST_EVERY: Final = 3.0
"""Seconds between two lines when edges come or go meanwhile."""
NAMED: Final = 10
MAX_REFUSED: Final = 100


class Waiting:
    """What of it has been said. Times are run time in seconds."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said_at = 0.0
        self._pause = FIRST
        self._said: tuple[int, int] | None = None
        self._refused: dict[str, str] = {}

    def observe(self, state: Run, effects: Iterable[do.Effect], now: float) -> str | None:
        """To be told of every step; gives a line for a person when one is due."""
        for effect in effects:
            if isinstance(effect, do.Reply) and len(self._refused) < MAX_REFUSED:
                if isinstance(effect.body, do.Refuse):
                    self._refused[effect.client] = effect.body.detail or effect.body.reason
                elif isinstance(effect.body, do.Admit):
                    self._refused.pop(effect.client, None)
        have, need = views.progress(state)
        if not isinstance(state.phase, Selecting) or have >= need:
            self._since = None
            return None
        if self._since is None:
            self._since, self._said_at, self._pause, self._said = now, now, FIRST, None
        silent = now - self._said_at
        changed = self._said is not None and self._said != (have, need)
        if silent < (min(AT_MOST_EVERY, self._pause) if changed else self._pause):
            return None
        if not changed:
            self._pause = min(RAREST, 2 * self._pause)
        self._said_at, self._said = now, (have, need)
        left = views.seconds_left(state, now)
        until = "" if left is None else f"; {left:.0f} s left (--wait)"
        return f"waiting for edges: {waited_for(state)}{until}" + (
            f"; {who}" if (who := self.refused) else ""
        )

    @property
    def refused(self) -> str:
        """Who was sent away and has not come back otherwise, and why; empty for nobody."""
        if not self._refused:
            return ""
        named = [f"{name} ({why})" for name, why in sorted(self._refused.items())]
        return f"refused: {_names(named)}"


def waited_for(state: Run) -> str:
    """How many edges are ready, and who is not; or who evaluates. Empty when nobody in particular is waited for."""
    if isinstance(state.phase, Evaluating):
        waiting = sorted({name for evaluation in state.evaluations for name in evaluation.waiting})
        return f"for the evaluation by {_names(waiting)}" if waiting else ""
    if not isinstance(state.phase, Selecting):
        return ""
    have, need = views.progress(state)
    trainers = {name: client for name, client in state.roster.clients.items() if client.trains}
    ready = {name for name, client in trainers.items() if client.present and client.examples}
    loading = sorted(name for name, client in trainers.items() if client.present and name not in ready)
    lost = sorted(name for name, client in trainers.items() if not client.present)
    said = [f"{have} of {need} ready"]
    if loading:
        said.append(f"loading: {_names(loading)}")
    if lost:
        said.append(f"offline: {_names(lost)}")
    count = state.settings.clients
    absent = count - len(trainers)
    if absent > 0 and not state.begun:
        numbered = all(own_part(name, count) is not None for name in trainers)
        parts = (number for number in range(count) if str(number) not in trainers)
        said.append(f"missing: {_ranges(parts) if numbered else f'{absent} more'}")
    return "; ".join(said)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _ranges(numbers: Iterable[int]) -> str:
    """``0, 3-7, 9``, and how many more there are beyond the first few."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in spans[:NAMED]]
    more = sum(last - first + 1 for first, last in spans[NAMED:])
    return ", ".join(shown) + (f" and {more} more" if more else "")
