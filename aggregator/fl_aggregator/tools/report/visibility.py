"""The section about what the aggregator could see of the edges' updates."""

from __future__ import annotations

from fl_aggregator.monitoring.views.visibility import NOT_CERTIFIED
from fl_aggregator.tools.report.markup import Markup, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import section
from fl_shared.protocol import messages as m

TITLE = "What the aggregator could see"


def visibility(run: RunReport) -> Markup | None:
    """Each update, or only sums, and of how many; null if the run's settings cannot be read."""
    if not run.settings:
        return None
    if run.masked is not None:
        return _sums(run, run.masked)
    return section(
        TITLE,
        tag("p", tag("b", "Each update"), ", with its number of examples, its losses and its metrics."),
        note="With --masked, it sees sums only.",
    )


def _sums(run: RunReport, masked: m.MaskedSums) -> Markup:
    sums = [(len(record.participants), record.round) for record in run.rounds if record.version is not None]
    smallest = (
        " None was computed yet."
        if not sums
        else " The smallest was of {} updates, in round {}.".format(*min(sums))
    )
    if masked.certified:
        keys = tag(
            "p", "Kits certified the edges' keys, so the aggregator could not pass its own off as theirs."
        )
    else:
        why = f"{NOT_CERTIFIED[0].upper()}{NOT_CERTIFIED[1:]}"
        keys = tag(
            "p",
            tag("b", f"{why}.", class_="bad"),
            " An aggregator that lies could have seen more. Such a run is for trying out.",
        )
    return section(
        TITLE,
        tag("p", tag("b", f"Only sums of at least {masked.least} updates"), f", one a round.{smallest}"),
        keys,
        note="Edges masked their updates, their numbers of examples, their losses and their metrics. In the sum of a "
        "round the masks cancel. First weights follow from the seed alone, and are not masked.",
    )
