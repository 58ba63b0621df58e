"""The section about where the edges run: their software and their machines."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from fl_aggregator.tools.report.markup import Child, Markup, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import section
from fl_shared.protocol import messages as m
from fl_shared.system.text import names_text, natural_order, size_text

MAX_NAMED: Final = 20
"""Edges of an environment that are named."""


def environments(run: RunReport) -> Markup | None:
    """A table of the distinct environments with their edges; null if no edge has told its own."""
    edges: dict[m.Environment, list[str]] = defaultdict(list)
    for name in natural_order(run.environments):
        edges[run.environments[name]].append(name)
    if not edges:
        return None
    computes = list(dict.fromkeys(one.computes for one in edges))
    warning = (
        None
        if len(computes) == 1
        else tag(
            "p", tag("b", "The edges compute with different software or on different platforms", class_="bad"),
            f": {names_text(computes)}. Their updates may differ in the last bits, so a run with the same seed may end "
            "in another model.",
        )
    )  # fmt: skip
    rows = [_row(one, names) for one, names in sorted(edges.items(), key=lambda item: -len(item[1]))]
    headings = ("edges", "computes with", "platform", "Python", "fl-mqtt", "cores", "memory", "number")
    columns = frozenset(range(5))
    return section(
        "Where the edges run", warning,
        table(headings, rows, caption="Software and machines of the edges, as they say", text_columns=columns),
    )  # fmt: skip


def _row(environment: m.Environment, names: list[str]) -> list[Child]:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return [
        ", ".join(names[:MAX_NAMED]) + more, environment.library or "–", environment.platform or "–",
        environment.python or "–", environment.fl_mqtt or "–",
        "–" if environment.cores is None else environment.cores,
        "–" if environment.memory is None else size_text(environment.memory), len(names),
    ]  # fmt: skip
