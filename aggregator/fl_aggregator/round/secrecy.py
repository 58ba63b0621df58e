"""What watchers are shown of a run whose cohorts are secret: nothing that depends on who was drawn. Pure."""

from __future__ import annotations

from typing import Final

from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.phases import Aggregating, Collecting, Stopped
from fl_aggregator.round.state import Run, Summary
from fl_shared.system.frozen import replace

LOST: Final = "updates were lost when the aggregator stopped"


def shown_run(run: Run) -> Run:
    """Returns the run as it is shown: with an open round in which nobody is, if its cohort is secret.

    It is open until its version is there: a round for which nobody is drawn would not be seen to be open otherwise.
    """
    phase = run.phase
    inner = phase.resume_phase if isinstance(phase, Stopped) else phase
    collected = inner.collected if isinstance(inner, Aggregating) else inner
    if not (isinstance(collected, Collecting) and collected.secret):
        return run
    shown = replace(
        collected, cohort=(), awaited=Awaited(), updates={}, dropped={}, target=0, selection_size=0
    )
    return replace(run, phase=replace(phase, resume_phase=shown) if isinstance(phase, Stopped) else shown)


def shown_summary(summary: Summary) -> Summary:
    """Returns the summary of a round as it is shown: without names, counts and seconds, if its cohort is secret."""
    if not summary.secret:
        return summary
    return replace(
        summary,
        cohort=(),
        participants=(),
        missing={},
        examples=0,
        seconds={},
        edges={},
        edges_version=None,
        reason=None if summary.reason is None else LOST,
    )
