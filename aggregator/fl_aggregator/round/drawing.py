"""Rounds whose cohort is secret: each eligible edge is in it with the same probability, independently. Pure.

Nobody but the drawn edges is told of it, so there is no quorum, and there are no substitutes: what would depend on who
was drawn would say something of it. The round closes when all that are drawn and present have answered, or at its
deadline, with whatever came. Its sum is divided by the expected number of edges (McMahan et al. 2018, "Learning
Differentially Private Recurrent Language Models", arXiv:1710.06963, algorithm 1).
"""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.closing import announcement_of
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.phases import Collecting, Selecting
from fl_aggregator.round.state import Run
from fl_shared.system.frozen import replace


def draw(state: Run, phase: Selecting, eligible: tuple[str, ...]) -> Transition:
    """Asks for the cohort of the next round. It is asked for again with each event until it is there."""
    plan = state.settings.privacy
    assert plan is not None, "a private run"
    return state, (do.Draw(phase.round, eligible, plan.rate),)


def drawn(state: Run, event: on.Drawn) -> Transition:
    """Opens the round with the cohort that was drawn, which is recorded by then; a second cohort changes nothing."""
    phase, settings = state.phase, state.settings
    if not isinstance(phase, Selecting) or phase.round != event.round or state.model is None:
        return state, ()
    collecting = Collecting(
        round=phase.round,
        since=phase.since,
        opened=event.now,
        deadline=event.now + settings.deadline,
        base=state.model,
        encoding=settings.encoding,
        target=settings.slots + 1,
        quorum=0,
        selection_size=len(event.cohort),
        cohort=event.cohort,
        substitutes=(),
        awaited=Awaited.of(event.cohort, state.roster, settings.grace),
        clip=state.releases.clip_of(settings.privacy),
        secret=True,
    )
    return replace(state, phase=collecting), (announcement_of(collecting),)
