"""A run that ends before its end, and is taken up again. Pure."""

from __future__ import annotations

from dataclasses import replace

from fl_aggregator import evaluations
from fl_aggregator.effects import Effect, End
from fl_aggregator.events import Resumed
from fl_aggregator.phases import (
    Aggregating,
    Collecting,
    Evaluating,
    Failed,
    Finished,
    Run,
    Selecting,
    Stopped,
)


def interrupt(state: Run, now: float, reason: str) -> tuple[Run, tuple[Effect, ...]]:
    """What is still under evaluation is written down as it is, and goes on if the run is taken up again."""
    assert isinstance(state.phase, Selecting | Collecting | Aggregating | Evaluating), "the run is not over"
    _, effects = evaluations.settle(state, now, everything=True)
    stopped = Stopped(at=now, reason=reason, before=state.phase)
    return replace(state, phase=stopped), (*effects, End())


def resume(state: Run, event: Resumed) -> Run:
    """Goes on where the run was. Whoever was here gets time to register again before anything is decided."""
    if isinstance(state.phase, Finished):
        return state
    state = replace(state, epoch=event.epoch, roster=state.roster.all_unconfirmed(event.now))
    match state.phase:
        case Stopped(before=before):
            return replace(state, phase=before)
        case Failed(before=before):
            phase = Selecting(round=before.round, since=event.now, not_before=event.now)
            return replace(state, phase=phase, abandoned_in_a_row=0)
        case _:
            return state
