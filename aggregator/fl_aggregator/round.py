"""The round: a pure state machine. Everything that decides how a run goes is in ``step``.

Selecting → Collecting → Aggregating → (committed | abandoned) → Selecting → … → Finished | Failed | Stopped
(and a resume leads from Failed and Stopped back to where the run was)

The same state and event always give the same state and effects. Whenever the state changes, the first effect
is ``Record(event)``; replaying the recorded events through ``step`` gives the state back, and no decision is
ever taken twice. ``effects`` says what the order of the effects promises.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, assert_never

from fl_aggregator import admission, evaluations, interruptions, verdict
from fl_aggregator import effects as do
from fl_aggregator import events as on
from fl_aggregator.phases import (
    Aggregating,
    Collecting,
    Evaluating,
    Failed,
    Finished,
    Run,
    Selecting,
    Stopped,
    collected_in,
)
from fl_aggregator.selection import permutation
from fl_aggregator.summaries import lack_of_edges, missing_from, overdue, summary_of
from fl_shared.protocol.messages import ModelReference

Step = tuple[Run, tuple[do.Effect, ...]]

MAX_ABANDONED_IN_A_ROW: Final = 5
LOADING: Final = 60.0
"""Seconds that edges get to load their part when it was only given to them at the end of the wait."""


def step(state: Run, event: on.Event) -> Step:
    """What ``event`` makes of ``state``, and what is to be done about it, in this order."""
    if state.over and not isinstance(event, on.Resumed):
        return _after_the_end(state, event)
    after, effects = _react(state, event)
    after, more = _advance(after, event.now)
    effects += more
    if after == state:
        return state, effects
    return after, (do.Record(event), *effects)


def _react(state: Run, event: on.Event) -> Step:
    match event:
        case on.Started(now=now):
            return _start(state, now)
        case on.Resumed():
            return interruptions.resume(state, event), ()
        case on.UpdatesLost():
            return _lose(state, event)
        case on.Disconnected(now=now):
            return replace(state, roster=state.roster.none_lost_just_before(now)), ()
        case on.Reconnected(now=now):
            return replace(state, roster=state.roster.all_unconfirmed(now)), ()
        case on.Registered():
            return admission.register(state, event)
        case on.EdgeLost(now=now, client=client, session=session):
            return replace(state, roster=state.roster.lost(client, session, now)), ()
        case on.UpdateOffered(update=update) | on.UpdateArrived(update=update):
            found = verdict.judge(state, update)
            if isinstance(found, do.Keep):
                return state, (do.Receive(update) if isinstance(event, on.UpdateOffered) else found,)
            state = verdict.put_out(state, update.client, update.round, found)
            return state, (verdict.reply(update, found),)
        case on.UpdateKept(update=update):
            return verdict.count(state, update)
        case on.UpdateUnusable():
            rejection = _rejection(event)
            state = verdict.put_out(state, event.client, event.round, rejection)
            return state, (do.Reply(event.client, event.session, rejection),)
        case on.TrainingFailed(client=client, round=number, detail=detail):
            return verdict.out(state, client, number, f"failed: {detail}"), ()
        case on.ModelMade():
            return _commit(state, event)
        case on.Evaluated():
            return evaluations.take(state, event), ()
        case on.TimePassed():
            return state, ()
        case on.Interrupted(now=now, reason=reason):
            return interruptions.interrupt(state, now, reason)
        case _:
            assert_never(event)


def _after_the_end(state: Run, event: on.Event) -> Step:
    """Edges stay after the run, and whoever repeats a question still gets an answer."""
    match event:
        case on.Registered():
            return state, admission.register_after_the_end(state, event)
        case on.UpdateOffered(update=update) | on.UpdateArrived(update=update) | on.UpdateKept(update=update):
            found = verdict.judge(state, update)
            if isinstance(found, do.Keep) or (isinstance(state.phase, Stopped) and _unknown_round(found)):
                return state, ()  # the round that was open may be taken up again: the edge keeps its update
            return state, (verdict.reply(update, found),)
        case on.UpdateUnusable():
            return state, (do.Reply(event.client, event.session, _rejection(event)),)
        case _:
            return state, ()


def _unknown_round(found: do.Accept | do.Reject) -> bool:
    return isinstance(found, do.Reject) and found.reason == "no-round"


def _rejection(event: on.UpdateUnusable) -> do.Reject:
    return do.Reject(event.round, event.digest, event.reason, event.detail)


# --- selecting --------------------------------------------------------------------------------------------


def _start(state: Run, now: float) -> Step:
    if not isinstance(state.phase, Selecting) or state.begun:
        return state, ()
    state = replace(state, phase=replace(state.phase, since=now, not_before=now))
    if state.model is None:
        return state, ()
    return state, (do.PublishModel(0, state.model, None),)


def _lose(state: Run, event: on.UpdatesLost) -> Step:
    """Whose update was accepted has forgotten it: the round cannot be what it was, and a new one is opened."""
    collected = collected_in(state.phase)
    if collected is None or collected.round != event.round or not event.clients:
        return state, ()
    named = ", ".join(event.clients[:5]) + (", …" if len(event.clients) > 5 else "")
    reason = f"accepted updates were lost with the aggregator that held them: {len(event.clients)} ({named})"
    return _abandon(state, collected, event.now, reason)


def _advance(state: Run, now: float) -> Step:
    """Does what is due: settles evaluations, opens, closes or abandons a round, ends the run."""
    if state.over:
        return state, ()
    state, effects = evaluations.settle(state, now)
    match state.phase:
        case Selecting() | Evaluating():
            state, more = _select(state, state.phase, now)
        case Collecting():
            state, more = _collect(state, state.phase, now)
        case _:
            more = ()
    return state, effects + more


def _select(state: Run, phase: Selecting | Evaluating, now: float) -> Step:
    settings = state.settings
    due = state.version >= settings.rounds or state.target_reached
    if due or settings.target_accuracy is not None:
        if state.evaluations:
            waiting = Evaluating(round=phase.round, since=phase.since)
            return (state if phase == waiting else replace(state, phase=waiting)), ()
        if due:
            return _finish(state, now)
    if isinstance(phase, Evaluating):
        phase = Selecting(round=phase.round, since=now, not_before=now)
        state = replace(state, phase=phase)
    if now < phase.not_before or state.roster.reconfirming(now):
        return state, ()
    if not state.begun:
        return _begin(state, phase, now)
    eligible = state.roster.eligible(state.manifest)
    needed = 1 if state.model is None else settings.needed
    if len(eligible) >= needed:
        return _open(state, phase, eligible, now)
    if now - phase.since >= settings.wait:
        return _fail_for_lack_of_edges(state, eligible, needed, now)
    return state, ()


def _begin(state: Run, phase: Selecting, now: float) -> Step:
    """The first round waits until all ``clients`` have loaded their parts; after ``wait``, for the quorum."""
    settings = state.settings
    waited = now - phase.since
    effects: tuple[do.Effect, ...] = ()
    if waited < settings.wait and len(state.roster.clients) < settings.clients:
        return state, ()  # the cheap answer while thousands of edges register
    trainers = state.roster.trainers()
    everyone = len(trainers) >= settings.clients
    if (everyone or waited >= settings.wait) and any(state.roster[n].part is None for n in trainers):
        state, effects = admission.give_parts(state)
        everyone = len(state.roster.trainers()) >= settings.clients
    loading = any(state.roster[name].examples is None for name in trainers if name in state.roster)
    if loading and waited < settings.wait + LOADING:
        return state, effects
    manifest = admission.common_manifest(state)
    eligible = state.roster.eligible(manifest) if manifest is not None else ()
    enough = len(eligible) >= settings.needed
    # All may be here and have loaded, but some have no data or another model: nobody else is to come.
    if waited < settings.wait and not (everyone and enough):
        return state, effects
    if not enough:
        state, more = _fail_for_lack_of_edges(state, eligible, settings.needed, now)
        return state, effects + more
    state, refused = admission.refuse_other_manifests(replace(state, begun=True, manifest=manifest))
    state, opened = _open(state, phase, eligible, now)
    return state, (*effects, *refused, *opened)


def _open(state: Run, phase: Selecting, eligible: tuple[str, ...], now: float) -> Step:
    settings = state.settings
    order = permutation(eligible, settings.seed, phase.round)
    first_weights = state.model is None
    width = 1 if first_weights else min(settings.per_round + settings.over_select, len(order))
    collecting = Collecting(
        round=phase.round,
        since=phase.since,
        opened=now,
        deadline=now + settings.deadline,
        base=state.model,
        target=1 if first_weights else min(settings.per_round, len(order)),
        quorum=1 if first_weights else settings.needed,
        width=width,
        cohort=order[:width],
        substitutes=order[width:],
    )
    return replace(state, phase=collecting), (announcement_of(collecting),)


def announcement_of(phase: Collecting) -> do.AnnounceRound:
    """Of an open round as it is."""
    return do.AnnounceRound(phase.round, phase.base, phase.cohort, phase.deadline)


def _fail_for_lack_of_edges(state: Run, eligible: tuple[str, ...], needed: int, now: float) -> Step:
    assert isinstance(state.phase, Selecting | Evaluating)
    detail = lack_of_edges(state, eligible, needed)
    return _end(state, Failed(at=now, reason="too-few-edges", detail=detail, before=state.phase), now)


# --- collecting -------------------------------------------------------------------------------------------


def _collect(state: Run, phase: Collecting, now: float) -> Step:
    """Closes the round if it is complete; else calls substitutes for who dropped out; ends it in time."""
    if len(phase.updates) >= phase.target:
        return _close(state, phase, now)
    out_of_time = now >= phase.deadline
    if out_of_time and phase.base is None:
        # First weights: whoever was asked has had its time, and the next one is asked.
        phase = replace(phase, out={**phase.out, **dict.fromkeys(phase.awaited, overdue(phase, now))})
    grace = state.settings.grace
    gone = frozenset(n for n in phase.awaited if state.roster.absent(n, now, grace))
    at_work = len(phase.updates) + len(phase.awaited) - len(gone)
    called: tuple[str, ...] = ()
    if at_work < phase.width and (not out_of_time or phase.base is None):
        eligible = frozenset(state.roster.eligible(state.manifest))
        called = tuple(n for n in phase.substitutes if n in eligible)[: phase.width - at_work]
    if called:
        phase = replace(
            phase,
            cohort=phase.cohort + called,
            substitutes=tuple(n for n in phase.substitutes if n not in called),
            deadline=now + state.settings.deadline if phase.base is None else phase.deadline,
        )
        return replace(state, phase=phase), (announcement_of(phase),)
    if at_work == len(phase.updates) or out_of_time:
        if len(phase.updates) >= phase.quorum:
            return _close(state, phase, now)
        why = "its deadline passed" if out_of_time else "nobody who is present was left to answer"
        have = f"{len(phase.updates)} of {phase.quorum} updates needed"
        return _abandon(state, phase, now, f"{why} with {have}")
    return state, ()


def _close(state: Run, phase: Collecting, now: float) -> Step:
    aggregating = Aggregating(collected=phase, closed=now, missing=missing_from(state, phase, now))
    return replace(state, phase=aggregating), (average_of(phase),)


def average_of(phase: Collecting) -> do.Average:
    """Of all the updates that a round has come to."""
    contributors = tuple(phase.updates[name] for name in sorted(phase.updates))
    return do.Average(phase.round, phase.version, phase.base, contributors)


def _abandon(state: Run, phase: Collecting, now: float, reason: str) -> Step:
    summary = summary_of(state, phase, now, now, reason=reason)
    abandoned = state.abandoned_in_a_row + 1
    # Doubling from a second on; whoever blinked has time to come back.
    pause = min(2.0 ** (abandoned - 1), 30.0)
    following = Selecting(
        round=phase.round if phase.base is None else phase.round + 1, since=now, not_before=now + pause
    )
    state = replace(
        state,
        phase=following,
        abandoned_in_a_row=abandoned,
        closed=verdict.remember(state.closed, phase),
        unsettled=state.unsettled if phase.base is None else (*state.unsettled, summary),
    )
    effects: tuple[do.Effect, ...] = (do.PublishResult(summary), do.WithdrawRound(phase.round))
    if abandoned < MAX_ABANDONED_IN_A_ROW:
        if phase.base is None:
            # Round 0 is opened again under its number, and whoever saw a result of it would not take part.
            effects = effects[1:]
        state, settled = evaluations.settle(state, now)
        return state, (*effects, *settled)
    detail = f"{abandoned} rounds in a row were abandoned; round {phase.round}: {reason}"
    failed = Failed(at=now, reason="rounds-abandoned", detail=detail, before=following)
    state, ended = _end(state, failed, now)
    return state, (*effects, *ended)


# --- aggregating and the end ------------------------------------------------------------------------------


def _commit(state: Run, event: on.ModelMade) -> Step:
    phase = state.phase
    if not isinstance(phase, Aggregating) or phase.round != event.round:
        return state, ()
    collected = phase.collected
    model = ModelReference(version=collected.version, digest=event.digest)
    summary = summary_of(state, collected, phase.closed, event.now, model=model, missing=phase.missing)
    state = replace(
        state,
        phase=Selecting(round=phase.round + 1, since=event.now, not_before=event.now),
        model=model,
        manifest=event.manifest,
        abandoned_in_a_row=0,
        closed=verdict.remember(state.closed, collected),
        unsettled=state.unsettled if collected.base is None else (*state.unsettled, summary),
    )
    state, split = evaluations.ask(state, model, event.now)
    return state, (
        do.PublishModel(phase.round, model, split),
        do.PublishResult(summary),
        do.WithdrawRound(phase.round),
    )


def _finish(state: Run, now: float) -> Step:
    reason: Literal["rounds", "target-accuracy"] = (
        "rounds" if state.version >= state.settings.rounds else "target-accuracy"
    )
    return _end(state, Finished(at=now, reason=reason), now)


def _end(state: Run, phase: Finished | Failed, now: float) -> Step:
    state, effects = evaluations.settle(state, now, everything=True)
    return replace(state, phase=phase), (*effects, do.End())
