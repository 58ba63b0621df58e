"""What each edge is doing, as far as an aggregator can know: the content of ``fl/round/<n>/edges``. Pure.

Between its selection and its update an edge sends nothing, so that an edge that is selected and present
counts as training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.roster import Client
from fl_aggregator.round.state import Aggregating, Collecting, Run, Stopped, Summary
from fl_shared.protocol import messages as m
from fl_shared.system.text import shortened

LOADING_REASON: Final = "is loading its data"
NO_EXAMPLES_REASON: Final = "has no examples to train on"
LOST_REASON: Final = "its connection is lost"
UNCONFIRMED_REASON: Final = "has not returned since the aggregator lost its connection"
MAX_STATE_REASON: Final = 160


@dataclass(frozen=True, slots=True)
class LatestUpdate:
    """The published numbers of an edge's newest update. A metric that the edge did not report is null."""

    examples: int
    seconds: float
    size: int
    accuracy: float | None
    loss: float | None

    @classmethod
    def of(cls, update: UpdateMetadata) -> LatestUpdate:
        """Takes the published numbers from an update's metadata."""
        after = update.after
        return cls(update.examples, update.seconds, update.size, after.get("accuracy"), after.get("loss"))


EdgeState = tuple[str, m.EdgeStateName, str | None]
"""An edge's name, its state, and the reason for the state, or null."""


def open_round_views(
    state: Run, uploading: Collection[str], newest: Mapping[str, LatestUpdate]
) -> dict[str, m.EdgeView]:
    """The view of every edge of the roster, while a round is open or before it opens.

    ``uploading``: the edges whose updates are arriving. ``newest``: each edge's newest update.
    """
    return {
        name: _edge_view(here, why, newest.get(name)) for name, here, why in edge_states_of(state, uploading)
    }


def edge_states_of(state: Run, uploading: Collection[str]) -> Iterator[EdgeState]:
    """The state of every edge of the roster, while a round is open or before it opens.

    ``uploading``: the edges whose updates are arriving.
    """
    phase = state.phase.resume_phase if isinstance(state.phase, Stopped) else state.phase
    missing: Mapping[str, str] = {}
    collected = None
    if isinstance(phase, Aggregating):
        collected, missing = phase.collected, phase.missing
    elif isinstance(phase, Collecting):
        collected, missing = phase, phase.dropped
    called = frozenset() if collected is None else frozenset(collected.cohort)
    here: m.EdgeStateName
    why: str | None
    for name, client in state.roster.clients.items():
        if collected is None or name not in called:
            here, why = _idle_state(client)
        elif name in collected.updates:
            here, why = "in", None
        elif name in missing:
            here, why = "missing", missing[name]
        elif not client.present:
            here, why = _idle_state(client)
        elif name in uploading:
            here, why = "uploading", None
        else:
            # In round 0, one edge creates the initial weights, and no edge trains.
            here, why = ("selected" if collected.base is None else "training"), None
        yield name, here, why


def closed_round_views(
    state: Run, summary: Summary, newest: Mapping[str, LatestUpdate]
) -> dict[str, m.EdgeView]:
    """The view of every edge of the roster after a round: a selected edge is ``in`` or ``missing``."""
    called = frozenset(summary.cohort)
    found: dict[str, m.EdgeView] = {}
    here: m.EdgeStateName
    why: str | None
    for name, client in state.roster.clients.items():
        if name in summary.missing:
            here, why = "missing", summary.missing[name]
        elif name in called:
            here, why = "in", None
        else:
            here, why = _idle_state(client)
        found[name] = _edge_view(here, why, newest.get(name))
    return found


def _idle_state(client: Client) -> tuple[m.EdgeStateName, str | None]:
    if not client.present:
        return "offline", UNCONFIRMED_REASON if client.unconfirmed else LOST_REASON
    if client.trains and not client.examples:
        return "present", LOADING_REASON if client.examples is None else NO_EXAMPLES_REASON
    return "present", None


def _edge_view(state: m.EdgeStateName, why: str | None, newest: LatestUpdate | None) -> m.EdgeView:
    why = None if why is None else shortened(why, MAX_STATE_REASON)
    if newest is None:
        return m.EdgeView(state=state, reason=why)
    return m.EdgeView(
        state=state,
        reason=why,
        examples=newest.examples,
        seconds=newest.seconds,
        bytes=newest.size,
        accuracy=newest.accuracy,
        loss=newest.loss,
    )


def select_views(edges: dict[str, m.EdgeView], count: int) -> dict[str, m.EdgeView]:
    """At most ``count`` of the edges, in the same order; idle and offline edges are left out first."""
    idle = {name: view.state in ("present", "offline") for name, view in edges.items()}
    chosen = set(sorted(edges, key=idle.__getitem__)[:count])
    return {name: view for name, view in edges.items() if name in chosen}
