"""Ends rounds and runs: closes, commits or abandons them; and resumes a run that was stopped. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Literal

from fl_aggregator.configuration.masking import unmask_seconds
from fl_aggregator.privacy.bounded_mean import on_grid
from fl_aggregator.round import effects as do
from fl_aggregator.round import evaluation, updates
from fl_aggregator.round import events as on
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.events import Resumed
from fl_aggregator.round.pace import ResponseTimes
from fl_aggregator.round.phases import (
    ROUND_PHASES,
    Aggregating,
    Agreeing,
    Collecting,
    Failed,
    Finished,
    Selecting,
    Stopped,
    Unmasking,
    agreeing_of,
)
from fl_aggregator.round.privacy import noise_of_release
from fl_aggregator.round.roster import Roster
from fl_aggregator.round.state import Counted, Run, Summary
from fl_aggregator.round.summary import (
    deadline_reason,
    missing_reasons,
    not_arrived_text,
    summary_of,
    too_few_updates_detail,
)
from fl_shared.protocol.messages import ModelReference
from fl_shared.system.backoff import backoff
from fl_shared.system.frozen import replace

MAX_CONSECUTIVE_ABANDONED: Final = 5
"""The run fails when this many rounds in a row were abandoned."""


def announcement_of(phase: Collecting) -> do.AnnounceRound:
    """Returns the effect that publishes the cohort of an open round, as it is now."""
    return do.AnnounceRound(
        phase.round,
        phase.base,
        phase.encoding,
        phase.cohort,
        phase.deadline,
        phase.order,
        phase.masking,
        phase.clip,
        phase.secret,
    )


def collect(state: Run, phase: Collecting, now: float) -> Transition:
    """Decides how an open round goes on: it waits, selects substitutes, closes, or is abandoned.

    It closes at once with its target of updates. Substitutes replace edges that dropped out, or were lost for
    longer than the grace. At the deadline, or when all edges that are left have answered, it closes if it has
    its quorum, and is abandoned otherwise. In round 0, the deadline selects the next edge instead. A round with a
    secret cohort closes with whatever has come.
    """
    if len(phase.updates) >= phase.target:
        return _close_round(state, phase, now)
    if now < due(state, phase):
        return state, ()
    if phase.secret:
        return _close_round(state, phase, now)
    deadline_passed = now >= phase.deadline
    if deadline_passed and phase.base is None:
        # Initial weights: the edge that was asked has had its time, so the next one is asked.
        late = dict.fromkeys(phase.awaited, deadline_reason(phase, now))
        phase = replace(phase, dropped={**phase.dropped, **late}, awaited=Awaited())
    active = len(phase.updates) + len(phase.awaited) - phase.awaited.count_absent(now)
    added: tuple[str, ...] = ()
    if active < phase.selection_size and (not deadline_passed or phase.base is None):
        added = tuple(islice(_eligible_substitutes(state, phase), phase.selection_size - active))
    if added:
        grace = state.settings.grace
        phase = replace(
            phase,
            awaited=Awaited.of((*phase.awaited, *added), state.roster, grace),
            cohort=phase.cohort + added,
            substitutes=tuple(n for n in phase.substitutes if n not in added),
            deadline=now + state.settings.deadline if phase.base is None else phase.deadline,
            called={**phase.called, **dict.fromkeys(added, now)},
        )
        return replace(state, phase=phase), (announcement_of(phase),)
    if len(phase.updates) >= phase.quorum:
        return _close_round(state, phase, now)
    cause = "the deadline passed" if deadline_passed else "all connected edges have answered"
    return abandon(state, phase, now, f"{cause}, but {too_few_updates_detail(phase)}")


def due(state: Run, phase: Collecting) -> float:
    """Returns the run time at which `collect` selects a substitute or ends the round, if only time passes.

    That is at the deadline, or when so many of the awaited edges are absent that a substitute is needed, or all of them
    if none is eligible.
    """
    needed = len(phase.awaited)
    if any(True for _ in _eligible_substitutes(state, phase)):
        needed = len(phase.updates) + len(phase.awaited) - phase.selection_size + 1
    if needed <= 0:
        return -math.inf
    absent_at = phase.awaited.absence(needed)
    return phase.deadline if absent_at is None else min(phase.deadline, absent_at)


def follow_roster(state: Run, phase: Collecting, before: Roster, client: str | None) -> Run:
    """Returns the run with the awaited edges as they are on the roster now. Null: not only ``client`` may differ."""
    known, grace = client is not None and client in before, state.settings.grace
    if client is not None and len(state.roster.clients) == len(before.clients) + (not known):
        awaited = phase.awaited.follow(client, state.roster, grace)
    else:  # all may have, or a full roster has forgotten some
        awaited = Awaited.of(phase.awaited, state.roster, grace)
    return state if awaited is phase.awaited else replace(state, phase=replace(phase, awaited=awaited))


def _eligible_substitutes(state: Run, phase: Collecting) -> Iterator[str]:
    for name in phase.substitutes:
        client = state.roster.get(name)
        if client is not None and client.present and client.ready(state.manifest):
            yield name


def _close_round(state: Run, phase: Collecting, now: float) -> Transition:
    missing = missing_reasons(state, phase, now)
    state = replace(state, response_times=_response_times(state, phase, now))
    if phase.masking is None:
        aggregating = Aggregating(collected=phase, closed=now, missing=missing)
        return replace(state, phase=aggregating), (average_of(state, phase),)
    deadline = now + unmask_seconds(state.settings)
    agreeing = Agreeing(collected=phase, closed=now, missing=missing, deadline=deadline)
    return replace(state, phase=agreeing), (closing_of(agreeing),)


def closing_of(phase: Agreeing) -> do.PublishClosing:
    """Returns the effect that asks the members of a masked round to sign what is summed."""
    return do.PublishClosing(phase.round, phase.collected.included, phase.deadline)


def _response_times(state: Run, phase: Collecting, now: float) -> tuple[ResponseTimes, ...]:
    """Returns what the edges took in the last rounds and in this one, which closes now; empty unless it is needed."""
    pace = state.settings.parsed_pace
    if pace is None or phase.base is None:
        return ()
    present = [name for name in phase.awaited if name in state.roster and state.roster[name].present]
    surplus = len(present) if len(phase.updates) >= phase.target else 0
    closed = ResponseTimes(
        accepted=tuple(update.response_seconds for update in phase.updates.values()),
        waited=tuple(phase.waited_for(name, now) for name in present),
        failed=len(phase.cohort) - len(phase.updates) - surplus,
    )
    return (*state.response_times, closed)[-pace.window :]


def average_of(state: Run, phase: Collecting, unmasking: Unmasking | None = None) -> do.Average:
    """Returns the effect that averages all updates of a round, in ascending order of the clients."""
    contributors = tuple(phase.updates[name] for name in sorted(phase.updates))
    before, after = (
        sum(one.examples for one in counted.values()) for counted in (state.counted, _counted(state, phase))
    )
    holders = () if unmasking is None else tuple(sorted(unmasking.opened))
    return do.Average(
        phase.round,
        phase.version,
        phase.base,
        contributors,
        (before, after),
        holders,
        phase.clip,
        _accuracies(state, phase),
    )


def _accuracies(state: Run, phase: Collecting) -> int | None:
    """Returns the sum of the edges' accuracies of the base; one that is impossible, or not there, counts as ½."""
    plan, name = state.settings.privacy, state.primary.name
    if plan is None or not plan.accuracy or phase.base is None:
        return None
    found = [update.before.get(name, 0.5) for update in phase.updates.values()]
    return sum(on_grid(one) for one in found if 0 <= one <= 1)


def _counted(state: Run, phase: Collecting) -> dict[str, Counted]:
    """Returns the updates that count once the round is committed.

    An edge counts with the examples that it had first. An update contains how much what it keeps has changed: the
    mean would no longer be that of what edges keep if their weights changed, too.
    """
    now = {
        name: Counted(round=update.round, digest=update.digest, examples=update.counted_examples)
        for name, update in phase.updates.items()
        if state.settings.edges_keep_state and phase.base is not None
    }
    return {**state.counted, **now}


def abandon(state: Run, phase: Collecting, now: float, reason: str) -> Transition:
    """Abandons a round, keeps the model as it was, and selects again after a pause.

    The pause doubles from 1 s to at most 30 s. The run fails after `MAX_CONSECUTIVE_ABANDONED` rounds in a
    row. Round 0 is opened again under its own number, also after a resume of the failed run. Its result is not
    published: edges that saw it would not take part again.
    """
    agreeing = agreeing_of(state.phase)
    closed, missing = (now, None) if agreeing is None else (agreeing.closed, agreeing.missing)
    summary = summary_of(state, phase, closed, now, reason=reason, missing=missing)
    consecutive = 1 if state.settings.region else state.consecutive_abandoned + 1
    # It doubles from 1 s on, so that edges that lost their connection briefly have time to return.
    pause = backoff(consecutive - 1, first=1.0, most=30.0)
    next_phase = Selecting(
        round=phase.round if phase.base is None else phase.round + 1, since=now, not_before=now + pause
    )
    state = replace(
        state,
        phase=next_phase,
        consecutive_abandoned=consecutive,
        response_times=(),  # what earlier rounds took has misled this one
    )
    state = with_ended_round(state, phase, summary)
    published = () if phase.base is None else (do.PublishResult(summary),)
    declined = () if phase.order is None else (do.DeclineOrder(phase.round, reason),)
    effects: tuple[do.Effect, ...] = (*published, do.WithdrawRound(phase.round), *declined)
    if consecutive < MAX_CONSECUTIVE_ABANDONED:
        state, advanced = evaluation.advance(state, now)
        return state, (*effects, *advanced)
    detail = f"{consecutive} rounds in a row were abandoned; round {phase.round}: {reason}{not_arrived_text(summary)}"
    failed = Failed(at=now, reason="rounds-abandoned", detail=detail, resume_phase=next_phase)
    state, ended = end_run(state, failed, now)
    return state, (*effects, *ended)


def with_ended_round(state: Run, phase: Collecting, summary: Summary) -> Run:
    """Remembers a round that has ended, and its summary until it is final; a round 0 has no line in the history."""
    pending = state.pending_summaries if phase.base is None else (*state.pending_summaries, summary)
    closed = updates.append_closed_round(state.closed_rounds, phase)
    return replace(state, closed_rounds=closed, pending_summaries=pending)


def commit(state: Run, event: on.ModelCreated) -> Transition:
    """Commits the round whose average is on disk, if it is the one that is being averaged.

    The new version is published, then the result; the edges are asked to evaluate it if that is due.
    """
    phase = state.phase
    if not isinstance(phase, Aggregating) or phase.round != event.round:
        return state, ()
    next_phase = Selecting(round=phase.round + 1, since=event.now, not_before=event.now)
    state = blame(state, event.liars)
    state, effects = committed(state, phase, event)
    if event.tallies is not None and phase.collected.base is not None:
        state, measured = evaluation.take_tallies(state, phase.collected.base, event.tallies)
        effects += measured
    if event.accuracy is not None and phase.collected.base is not None:
        plan, secret = state.settings.privacy, phase.collected.secret
        count = plan.expected if secret and plan is not None else len(phase.collected.updates)
        state, measured = evaluation.take_accuracy(state, phase.collected.base, event.accuracy, count)
        effects += measured
    return replace(state, phase=next_phase), (*effects, do.WithdrawRound(phase.round))


def committed(state: Run, phase: Aggregating, event: on.ModelCreated) -> Transition:
    """Returns the run with the version that was made of a closed round; the phase stays as it is."""
    collected = phase.collected
    model = ModelReference(version=collected.version, digest=event.digest)
    if phase.unmasking is None:
        state = with_release(state, collected, event.clip)
    summary = summary_of(
        state,
        collected,
        phase.closed,
        event.now,
        model=model,
        missing=phase.missing,
        tallies=event.tallies,
    )
    summary = replace(summary, similarity=event.similarity, strategy=event.strategy)
    state = replace(
        state,
        model=model,
        manifest=event.manifest,
        consecutive_abandoned=0,
        counted=_counted(state, collected),
    )
    state = with_ended_round(state, collected, summary)
    served = None if event.served is None else ModelReference(version=model.version, digest=event.served)
    state = replace(state, served=served or model)
    state, split = evaluation.request_evaluation(state, served or model, event.now, event.strategy_state)
    return state, (
        do.PublishModel(phase.round, model, split, event.strategy_state, served),
        do.PublishResult(summary),
    )


def with_release(state: Run, collected: Collecting, next_clip: float | None = None) -> Run:
    """Charges the edges of a private run whose updates are in a sum, which the aggregator can see from now on."""
    plan = state.settings.privacy
    if plan is None or collected.base is None:
        return state
    noise = noise_of_release(plan, collected.masking, len(collected.updates))
    clients = tuple(sorted(collected.updates))
    released = state.releases.with_release(clients, noise, collected.clip, next_clip)
    return replace(state, releases=released)


def blame(state: Run, clients: Iterable[str]) -> Run:
    """Counts the members who have spoilt a masked round; who has done so twice takes no more part."""
    for name in clients:
        state = replace(state, misled={**state.misled, name: state.misled.get(name, 0) + 1})
        client, why = state.roster.get(name), state.misled_text(name)
        if why is not None and client is not None:
            state = replace(state, roster=state.roster.with_client(name, replace(client, unable=why)))
    return state


def finish(state: Run, now: float) -> Transition:
    """Ends the run as finished: all versions were made, or the target was reached."""
    reason: Literal["rounds", "target"] = "rounds" if state.version >= state.settings.rounds else "target"
    return end_run(state, Finished(at=now, reason=reason), now)


def end_run(state: Run, phase: Finished | Failed, now: float) -> Transition:
    """Ends the run in the given phase; pending evaluations are closed with the reports that have come."""
    state, effects = evaluation.advance(state, now, close_all=True)
    return replace(state, phase=phase), (*effects, do.EndRun())


def stop_run(state: Run, now: float, reason: str) -> Transition:
    """Stops a run at the operator's request, so that it can be resumed in its present phase.

    The history is written with pending evaluations as they are; they go on if the run is resumed.
    """
    assert isinstance(state.phase, ROUND_PHASES), "the run is not over"
    _, effects = evaluation.advance(state, now, close_all=True)
    stopped = Stopped(at=now, reason=reason, resume_phase=state.phase)
    return replace(state, phase=stopped), (*effects, do.EndRun())


def resume(state: Run, event: Resumed) -> Run:
    """Continues a run in the phase where it was; a finished run stays as it is.

    All edges are unconfirmed, so that they have time to register again before anything is decided. A failed
    run selects again, and its count of abandoned rounds is reset.
    """
    if isinstance(state.phase, Finished):
        return state
    state = replace(state, incarnation=event.incarnation, roster=state.roster.mark_all_unconfirmed(event.now))
    match state.phase:
        case Stopped(resume_phase=before):
            return with_time_to_unmask(replace(state, phase=before), event.now)
        case Failed(resume_phase=before):
            phase = Selecting(round=before.round, since=event.now, not_before=event.now)
            return replace(state, phase=phase, consecutive_abandoned=0)
        case _:
            return with_time_to_unmask(state, event.now)


def with_time_to_unmask(state: Run, now: float) -> Run:
    """Gives the members of a masked round all their time again, since they may have heard nothing meanwhile."""
    if not isinstance(state.phase, Agreeing | Unmasking):
        return state
    deadline = now + unmask_seconds(state.settings)
    return replace(state, phase=replace(state.phase, deadline=deadline))
