"""The operator's commands: to pause the run, to end the pause, to stop the run. Pure.

In a pause, run time stands still, so no deadline passes. Registrations, updates and evaluations are taken in, and a
round that has all its updates is completed. But no edge is selected, no round opens, and none is closed with fewer
updates. Each pause has a number, so that a copy of a command that comes late changes nothing.
"""

from __future__ import annotations

from typing import Final

from fl_aggregator.round import closing
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.state import Run
from fl_shared.protocol.messages import CommandName
from fl_shared.system.frozen import replace

COMMANDS: Final[dict[type[on.Event], CommandName]] = {
    on.StopRequested: "stop",
    on.PauseRequested: "pause",
    on.UnpauseRequested: "resume",
}
"""The command that each event comes from."""


def pause(state: Run, event: on.PauseRequested) -> Transition:
    """Pauses the run, if it is to be this pause."""
    if state.paused is not None and event.number in (None, state.pauses):
        return state, answer(event, accepted=True, detail=f"was already paused, {state.paused}")
    if event.number not in (None, state.pauses + 1):
        return state, answer(event, accepted=False, detail=f"pause {event.number} has ended")
    if state.paused is not None:
        return state, answer(event, accepted=False, detail=f"pause {state.pauses} has not ended")
    state = replace(state, paused=event.reason, pauses=state.pauses + 1)
    return state, answer(event, accepted=True, detail=f"paused {event.reason}")


def unpause(state: Run, event: on.UnpauseRequested) -> Transition:
    """Ends the pause, if it is this one. Members of a masked round have all their time again."""
    if state.paused is None:
        return state, answer(event, accepted=True, detail="was not paused")
    if event.number not in (None, state.pauses):
        return state, answer(event, accepted=False, detail=f"the current pause is {state.pauses}")
    state = closing.with_time_to_unmask(replace(state, paused=None), event.now)
    return state, answer(event, accepted=True, detail="resumed")


def stop(state: Run, event: on.StopRequested) -> Transition:
    """Stops the run; if it is paused, it is so after a resume, too."""
    state, effects = closing.stop_run(state, event.now, event.reason)
    return state, (*effects, *answer(event, accepted=True, detail="stops, and can be resumed"))


def answer(
    event: on.StopRequested | on.PauseRequested | on.UnpauseRequested, *, accepted: bool, detail: str
) -> tuple[do.Answer, ...]:
    """Returns the answer to a command; empty if nobody is to be answered."""
    if event.answer_to is None:
        return ()
    return (do.Answer(event.answer_to, COMMANDS[type(event)], accepted, detail),)
