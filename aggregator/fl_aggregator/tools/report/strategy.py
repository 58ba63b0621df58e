"""The section about what the strategy says of the versions that it has made."""

from __future__ import annotations

from collections import Counter

from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.markup import Markup, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import section
from fl_shared.system.text import names_text, natural_order, number_text


def strategy(run: RunReport) -> Markup | None:
    """How its numbers went, and whose updates it has chosen; null if it has said nothing."""
    records = [one for one in run.rounds if one.strategy is not None]
    reports = [one.strategy for one in records if one.strategy is not None]
    if not reports:
        return None
    chosen = Counter(name for report in reports for name in report.chosen)
    choices = [one.participants for one in records if one.strategy is not None and one.strategy.chosen]
    offered = Counter(name for names in choices for name in names)
    called = naming_of(run)
    often = [f"{called(name)} in {chosen[name]} of {offered[name]} rounds" for name in natural_order(offered)]
    names = sorted({name for report in reports for name in report.numbers})
    series = {name: [one.numbers[name] for one in reports if name in one.numbers] for name in names}
    rows = [
        [name, *(number_text(one) for one in (values[-1], min(values), max(values)))]
        for name, values in series.items()
    ]
    return section(
        "What the strategy did",
        tag("p", tag("b", "Chosen: "), names_text(often)) if often else None,
        table(("", "newest", "lowest", "highest"), rows, caption="Its numbers over all versions"),
        note="change_norm is the L2 norm of the combined change of the parameters; history.jsonl has all rounds.",
    )
