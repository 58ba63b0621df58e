"""The published status of a run, and the edges that its open round waits for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fl_aggregator.round import looking
from fl_aggregator.round.phases import (
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Evaluating,
    Selecting,
    Unmasking,
)
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import pace_metrics
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import Envelope, EnvelopeSource
from fl_shared.system.text import natural_order, shortened

if TYPE_CHECKING:
    from fl_aggregator.storage.run_directory import RunRecord

MAX_STATUS_BYTES: Final = 1024 - codec.SIGNATURE_OVERHEAD
MAX_PAUSE_REASON: Final = 200


def progress(state: Run) -> tuple[int, int]:
    """(have, need): updates in the open round, or signatures or shares of its members if its updates are masked.

    If none is open, edges that could be selected.
    """
    phase = state.phase
    if isinstance(phase, Collecting):
        return len(phase.updates), phase.target
    if isinstance(phase, Agreeing):
        return len(phase.signatures), phase.masking.threshold
    if isinstance(phase, Unmasking):
        return len(phase.opened), phase.needed
    if isinstance(phase, Aggregating):
        return len(phase.collected.updates), phase.collected.target
    settings = state.settings
    if isinstance(phase, Buffering):
        return min(len(phase.updates), settings.per_round), settings.per_round
    ready = state.roster.count(lambda one: one.trains and one.present and bool(one.loaded))
    return ready, (settings.effective_quorum if state.begun else settings.clients)


def awaited_clients(state: Run) -> tuple[str, ...]:
    """The edges whose updates or answers the open round still waits for, or that are at work, in natural order."""
    match state.phase:
        case Collecting(awaited=names) | Buffering(tickets=names):
            return tuple(natural_order(names))
        case Agreeing(masking=masking, signatures=answered):
            return tuple(natural_order(masking.keys.keys() - answered.keys()))
        case Unmasking(agreeing=agreeing, opened=answered):
            return tuple(natural_order(agreeing.masking.keys.keys() - answered.keys()))
        case _:
            return ()


def seconds_left(state: Run, now: float) -> float | None:
    """Seconds until the deadline of the present phase, null if the phase has none. ``now``: run time."""
    phase = state.phase
    match phase:
        case Collecting(deadline=deadline) | Agreeing(deadline=deadline) | Unmasking(deadline=deadline):
            remaining = deadline - now
        case Selecting(not_before=begins) if looking.is_held(state, now):
            remaining = begins - now
        case Selecting(since=since):
            remaining = since + state.settings.wait - now
        case Evaluating():
            remaining = max((e.deadline for e in state.evaluations), default=now) - now
        case _:
            return None
    return round(max(0.0, remaining), 1)


def status_message(
    state: Run,
    scope: EnvelopeSource,
    now: float,
    paused: str | None = None,
    refused: Mapping[str, int] | None = None,
    record: RunRecord | None = None,
) -> m.Status:
    """The status message, in at most ``MAX_STATUS_BYTES`` bytes when encoded.

    It names up to 10 missing edges, and those of ``refused`` (`Rejections.worst`); if the space is too small,
    fewer missing edges, then none of ``refused``. ``paused``: why the run is paused, or null; shortened to
    ``MAX_PAUSE_REASON`` characters. ``record``: of the run, null if it says nothing but the usual.
    """
    envelope = scope.envelope()
    most_rejected = list((refused or {}).items())[: m.MAX_REFUSED_NAMED]
    for count in range(10, -1, -1):
        message = _build_status(state, envelope, now, count, paused, dict(most_rejected), record)
        if len(codec.encode(message)) <= MAX_STATUS_BYTES:
            return message
    return _build_status(state, envelope, now, 0, paused, {}, record)


def _build_status(
    state: Run,
    envelope: Envelope,
    now: float,
    max_missing: int,
    paused: str | None,
    refused: dict[str, int],
    record: RunRecord | None,
) -> m.Status:
    have, need = progress(state)
    number = getattr(state.phase, "round", None)
    return m.Status(
        **envelope,
        written=datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        task=state.settings.task,
        phase=state.phase.name,
        round=number,
        version=None if state.model is None else state.model.version,
        rounds=state.settings.rounds,
        have=have,
        need=need,
        present=state.roster.count(lambda one: one.present),
        seconds_left=seconds_left(state, now),
        missing=awaited_clients(state)[:max_missing],
        metrics={
            name: float(f"{state.metrics[name]:.9g}")
            for name in ("version", state.primary.name, m.LOSS.name, "evaluated_examples")
            if name in state.metrics
        }
        | (pace_metrics(state, state.phase) if isinstance(state.phase, Collecting) else {}),
        primary=None if state.declared is None else state.primary,
        split=state.split,
        paused=None if paused is None else shortened(paused, MAX_PAUSE_REASON),
        pauses=state.pauses,
        held=state.paused is not None,
        refused=refused,
        attack=None if record is None else record.attack,
        serving=serving_text(state, now),
        masked=None if record is None else record.masked,
        privacy=None if state.privacy is None else state.privacy.status,
        first_version=state.settings.first_served(state.version),
    )


def serving_text(state: Run, now: float) -> str | None:
    """Says what is done with the served model; null of a run that is no look."""
    begins = getattr(state.phase, "not_before", now)
    at = datetime.now(UTC) + timedelta(seconds=max(0.0, begins - now))
    return looking.progress_text(state, now, f"{at:%Y-%m-%d %H:%M:%S} UTC")


def missing_message(state: Run, scope: EnvelopeSource, now: float) -> m.Missing | None:
    """The message with all edges that the open round waits for, or that have a ticket; null if no round is open."""
    phase = state.phase
    match phase:
        case Collecting():
            asked = dict.fromkeys(phase.awaited, phase.opened)
        case Agreeing():
            asked = dict.fromkeys(awaited_clients(state), phase.closed)
        case Unmasking():
            asked = dict.fromkeys(awaited_clients(state), phase.since)
        case Buffering():
            asked = {name: ticket.issued for name, ticket in {**phase.tickets, **phase.away}.items()}
        case _:
            return None
    clients: dict[str, m.MissingClient] = {}
    for name in natural_order(asked):
        client = state.roster.get(name)
        lost = None if client is None else client.lost_at
        since = asked[name] if lost is None else lost
        clients[name] = m.MissingClient(
            state="online" if client is not None and lost is None else "offline",
            seconds=round(max(0.0, now - since), 1),
        )
    return m.Missing(**scope.envelope(), round=phase.round, clients=clients)


def service_line(state: Run, connected: bool, paused: str | None) -> str:
    """What the service manager is told that the aggregator does. ``paused``: why the run is paused, or null."""
    if paused is not None:
        return f"paused: {paused}"
    broker = "" if connected else "no broker; "
    return f"{broker}{state.phase.name}, version {state.version} of {state.settings.rounds}"
