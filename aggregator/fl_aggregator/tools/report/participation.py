"""The section about which edges took part in which rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fl_aggregator.monitoring.views.visibility import NO_NUMBERS
from fl_aggregator.tools.report import figures
from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.markup import Child, Markup, table, tag
from fl_aggregator.tools.report.reading import LatestResult, RunReport
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, format_number, section
from fl_shared.system.text import natural_order, quantity_text, size_text


def edges_of(run: RunReport) -> list[str]:
    """All edges that were selected, have sent an update, or have a known partition, sorted."""
    names = {
        name for record in run.rounds for name in (*record.cohort, *record.participants, *record.missing)
    }
    return natural_order(names | run.latest_results.keys() | run.label_counts.keys())


def participation(run: RunReport) -> Markup | None:
    """Which edges took part in which rounds; null if no edge is known."""
    edges = edges_of(run)
    if not edges:
        return None
    shown_edges, recent_rounds = figures.evenly_spaced(edges), run.rounds[-figures.MAX_ROUNDS :]
    limits = []
    if len(shown_edges) < len(edges):
        limits.append(f"{len(shown_edges)} of {len(edges)} edges, evenly chosen.")
    if len(recent_rounds) < len(run.rounds):
        limits.append(f"The last {len(recent_rounds)} of {len(run.rounds)} rounds.")
    if run.masked is not None:
        limits.append(NO_NUMBERS)
    note = " ".join(["A small dot: not selected in that round.", *limits])
    return section("Participation", figures.participation(
                       f"{run.name}/participation", recent_rounds, shown_edges, naming_of(run)),
                   _edge_table(run, edges), note=note)  # fmt: skip


def _edge_table(run: RunReport, edges: Sequence[str]) -> Markup:
    selected, participated, missing = (_count_names(names) for names in (
        (record.cohort for record in run.rounds), (line.participants for line in run.rounds),
        (line.missing_without_surplus for line in run.rounds)))  # fmt: skip
    masked, called = run.masked is not None, naming_of(run)
    rows = []
    for name in edges[:MAX_REPORT_ROWS]:
        latest = run.latest_results.get(name)
        counts = [called(name), selected.get(name, 0), participated.get(name, 0), missing.get(name, 0)]
        rows.append(counts if masked else [*counts, *_newest_update(run, latest)])
    headings = ["edge", "selected", "in", "missing"]
    caption = "Edges: how often each took part"
    if not masked:
        headings += ["examples", *(metric.name for metric in run.measured), "seconds", "update"]
        caption += ", and its newest update"
    suffix = f", the first {MAX_REPORT_ROWS}" if len(edges) > MAX_REPORT_ROWS else ""
    return tag("details", tag("summary", f"All {len(edges)} edges as a table{suffix}"),
               table(headings, rows, caption=caption))  # fmt: skip


def _newest_update(run: RunReport, latest: LatestResult | None) -> list[Child]:
    """The cells of a row that say what an edge's newest update was like; dashes for null."""
    if latest is None:
        return ["–"] * (3 + len(run.measured))
    measured = [quantity_text(latest.after.get(metric.name), metric.unit) for metric in run.measured]
    return [latest.examples, *measured, format_number(latest.seconds, 2), size_text(latest.size)]


def _count_names(groups: Iterable[Iterable[str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for names in groups:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts
