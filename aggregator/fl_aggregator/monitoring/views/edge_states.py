"""What each edge is doing, as far as an aggregator can know: the content of ``fl/round/<n>/edges``. Pure.

Between its selection and its update an edge sends nothing, so that an edge that is selected and present
counts as training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Aggregating, Buffering, Collecting, Stopped, agreeing_of
from fl_aggregator.round.roster import REVOKED, Client
from fl_aggregator.round.state import Run, Summary
from fl_aggregator.round.two_machines import TWO_MACHINES, are_two
from fl_shared.protocol import messages as m
from fl_shared.system.text import shortened

LOADING_REASON: Final = "loading its data"
UNASSIGNED_REASON: Final = "gets its data when the run starts"
NO_EXAMPLES_REASON: Final = "has no examples to train on"
EVALUATES_REASON: Final = "only evaluates"
LOST_REASON: Final = "its connection is lost"
LEFT_REASON: Final = "left: {}"
UNCONFIRMED_REASON: Final = "has not returned since the aggregator lost its connection"
BRIDGE_LOST_REASON: Final = "its broker {} is not connected"
MAX_STATE_REASON: Final = 160


@dataclass(frozen=True, slots=True)
class LatestUpdate:
    """The published numbers of an edge's newest update. ``after``: metrics of the trained model on its holdout."""

    examples: int
    seconds: float
    size: int
    after: Mapping[str, float]

    @classmethod
    def of(cls, update: UpdateMetadata) -> LatestUpdate:
        """Takes the published numbers from an update's metadata."""
        return cls(update.examples, update.seconds, update.size, update.after)


EdgeState = tuple[str, m.EdgeStateName, str | None]
"""An edge's name, its state, and the reason for the state, or null."""


def open_round_views(
    state: Run, uploading: Collection[str], latest_updates: Mapping[str, LatestUpdate]
) -> dict[str, m.EdgeView]:
    """The view of every edge of the roster, while a round is open or before it opens.

    ``uploading``: the edges whose updates are arriving. ``latest_updates``: each edge's newest update.
    """
    return {
        name: _edge_view(state, name, state_name, reason, latest_updates.get(name))
        for name, state_name, reason in edge_states_of(state, uploading)
    }


def edge_states_of(state: Run, uploading: Collection[str]) -> Iterator[EdgeState]:
    """The state of every edge of the roster, while a round is open or before it opens.

    ``uploading``: the edges whose updates are arriving.
    """
    phase = state.phase.resume_phase if isinstance(state.phase, Stopped) else state.phase
    if isinstance(phase, Buffering):
        yield from _buffering_states(state, phase, uploading)
        return
    missing: Mapping[str, str] = {}
    collected = None
    agreeing = agreeing_of(phase)
    if agreeing is not None:
        collected, missing = agreeing.collected, agreeing.missing
    elif isinstance(phase, Aggregating):
        collected, missing = phase.collected, phase.missing
    elif isinstance(phase, Collecting):
        collected, missing = phase, phase.dropped
    selected = frozenset() if collected is None else frozenset(collected.cohort)
    state_name: m.EdgeStateName
    reason: str | None
    for name, client in state.roster.clients.items():
        if collected is None or name not in selected:
            state_name, reason = _idle_state(client)
        elif name in collected.updates:
            state_name, reason = "in", None
        elif name in missing:
            state_name, reason = "missing", missing[name]
        elif not client.present:
            state_name, reason = _idle_state(client)
        elif name in uploading:
            state_name, reason = "uploading", None
        else:
            # In round 0, one edge creates the initial weights, and no edge trains.
            state_name, reason = ("selected" if collected.base is None else "training"), None
        yield name, state_name, reason


def _buffering_states(state: Run, phase: Buffering, uploading: Collection[str]) -> Iterator[EdgeState]:
    """The states in an asynchronous run: ``in`` is whose update is in the buffer, ``missing`` who has none to send."""
    buffered = {update.client: update.staleness for update in phase.updates}
    for name, client in state.roster.clients.items():
        ticket = phase.ticket_of(name)
        if name in buffered:
            yield name, "in", _age_text(buffered[name])
        elif ticket is not None and not client.present:
            yield name, *_idle_state(client)
        elif ticket is not None:
            age = _age_text(phase.versions - ticket.base.version)
            yield name, "uploading" if name in uploading else "training", age
        elif name in phase.dropped:
            yield name, "missing", phase.dropped[name]
        else:
            yield name, *_idle_state(client)


def _age_text(versions: int) -> str | None:
    return None if versions <= 0 else f"from {versions} version{'' if versions == 1 else 's'} ago"


def closed_round_views(
    state: Run, summary: Summary, latest_updates: Mapping[str, LatestUpdate]
) -> dict[str, m.EdgeView]:
    """The view of every edge of the roster after a round: a selected edge is ``in`` or ``missing``."""
    selected = frozenset(summary.cohort)
    views: dict[str, m.EdgeView] = {}
    state_name: m.EdgeStateName
    reason: str | None
    for name, client in state.roster.clients.items():
        if name in summary.missing:
            state_name, reason = "missing", summary.missing[name]
        elif name in selected:
            state_name, reason = "in", None
        else:
            state_name, reason = _idle_state(client)
        views[name] = _edge_view(state, name, state_name, reason, latest_updates.get(name))
    return views


def _idle_state(client: Client) -> tuple[m.EdgeStateName, str | None]:
    if not client.present and client.bridge_lost:
        return "offline", BRIDGE_LOST_REASON.format(client.via)
    if client.revoked:
        return "offline", REVOKED
    if client.left is not None and not client.present:
        return "offline", LEFT_REASON.format(client.left)
    if not client.present:
        return "offline", UNCONFIRMED_REASON if client.unconfirmed else LOST_REASON
    if client.unable is not None:
        return "present", f"does not take part: {client.unable}"
    if client.trains and not client.examples:
        if client.examples is not None:
            return "present", NO_EXAMPLES_REASON
        return "present", UNASSIGNED_REASON if client.partition is None else LOADING_REASON
    return "present", None if client.trains else EVALUATES_REASON


def _edge_view(
    run: Run,
    name: str,
    state: m.EdgeStateName,
    reason: str | None,
    latest_update: LatestUpdate | None,
) -> m.EdgeView:
    client = run.roster[name]
    environment, region = client.environment, client.region_text
    if region is not None and not (reason or "").startswith(region):
        reason = region if reason is None else f"{region}: {reason}"
    if are_two(client):
        reason = TWO_MACHINES if reason is None else f"{TWO_MACHINES}; {reason}"
    reason = None if reason is None else shortened(reason, MAX_STATE_REASON)
    if latest_update is None:
        return m.EdgeView(state=state, reason=reason, environment=environment)
    return m.EdgeView(
        state=state,
        reason=reason,
        examples=latest_update.examples,
        seconds=latest_update.seconds,
        bytes=latest_update.size,
        primary=latest_update.after.get(run.primary.name),
        loss=latest_update.after.get(m.LOSS.name),
        environment=environment,
    )


def personal_scores_of(state: Run, names: Collection[str]) -> dict[str, m.PersonalScore]:
    """What the models of these edges' own are worth, as far as it is known."""
    scores = state.personal or {}
    return {
        name: m.PersonalScore(before=score.before, after=score.after)
        for name, score in scores.items()
        if name in names
    }


def select_views(edges: dict[str, m.EdgeView], count: int) -> dict[str, m.EdgeView]:
    """At most ``count`` of the edges, in the same order; idle and offline edges are left out first."""
    idle = {name: view.state in ("present", "offline") for name, view in edges.items()}
    chosen = set(sorted(edges, key=idle.__getitem__)[:count])
    return {name: view for name, view in edges.items() if name in chosen}
