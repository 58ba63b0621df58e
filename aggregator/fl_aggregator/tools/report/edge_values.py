"""The sections about what models are worth at each edge: a strip of dots a version, and the edges' own models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.tools.report import figures
from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.drawing import SURFACE_COLOUR, colour, draw
from fl_aggregator.tools.report.figures import HALF_SIZE, MAX_ROUNDS, evenly_spaced, legend, whole_numbers
from fl_aggregator.tools.report.markup import Markup, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, section
from fl_shared.protocol import messages as m
from fl_shared.system.text import quantity_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DOTS: Final = 200
"""Edges of a version that are drawn; of more, this many, evenly chosen in the order of their values."""
STATISTICS: Final = dict(zip(m.EDGES_METRICS, ("mean", "10th percentile", "worst"), strict=True))
"""What `messages.EDGES_METRICS` are called in a legend."""


def edge_values(run: RunReport) -> Markup | None:
    """The primary metric of each version at each edge; null if no edge has measured it."""
    records = [record for record in run.rounds if record.edges and record.edges_version is not None]
    if not records:
        return None
    metric, called = run.primary, naming_of(run)
    headings = ["round", "version", "edges", *STATISTICS.values(), "the worst"]
    rows = [
        [
            record.round,
            record.edges_version,
            len(record.edges),
            *(quantity_text(record.metrics.get(name), metric.unit) for name in STATISTICS),
            _worst_text(record, called),
        ]
        for record in records[-MAX_REPORT_ROWS:]
    ]
    as_table = table(headings, rows, caption=f"{metric.name} over the edges", text_columns=frozenset({6}))
    note = (
        "What a version is worth at each edge, on the edge's own holdout. A dot is an edge: of those that trained from "
        "the version, or of all that were there if holdouts were asked for, as for the last version. In the mean each "
        "edge counts the same; of ten edges, nine are no worse than the 10th percentile."
    )
    return section(
        f"{metric.name} at each edge",
        strip(f"{run.name}/edges", metric, records[-MAX_ROUNDS:], called),
        tag("p", tag("b", "The worst in the newest round: "), _worst_text(records[-1], called)),
        tag("details", tag("summary", "As a table"), as_table),
        note=note,
    )


def personal(run: RunReport) -> Markup | None:
    """The primary metric of each edge's own model, before and after; null in a run without such models."""
    scores = next((record.personal for record in reversed(run.rounds) if record.personal is not None), None)
    if scores is None or not scores.after:
        return None
    metric, called = run.primary, naming_of(run)
    before, after = scores.means
    shown = [
        ("mean", before, after),
        *((called(name), scores.before.get(name), scores.after[name]) for name in scores.after),
    ]
    rows = [
        [name, *(quantity_text(value, metric.unit) for value in values)]
        for name, *values in shown[: MAX_REPORT_ROWS + 1]
    ]
    return section(
        "Personal models",
        figures.values_by_edge(
            f"{run.name}/personal", metric, [(called(name), value) for name, value in scores.after.items()], before),
        tag("details", tag("summary", f"All {len(scores.after)} edges as a table"),
            table(["edge", "last version", "its own model"], rows, caption="Personal models")),
        note=f"{metric.name} of the model that each edge has made of the last version (--personalize), on its holdout. "
             f"Mean {quantity_text(before, metric.unit)} before (the line), {quantity_text(after, metric.unit)} after.",
    )  # fmt: skip


def _worst_text(record: RoundRecord, called: Callable[[str], str]) -> str:
    unit = record.primary.unit
    return ", ".join(
        f"{called(name)} ({quantity_text(value, unit)})" for name, value in record.worst_edges.items()
    )


def strip(
    name: str,
    metric: m.MetricDeclaration,
    records: Sequence[RoundRecord],
    called: Callable[[str], str],
) -> Markup:
    """A dot for each edge above each version, with the mean, the 10th percentile and the worst value as curves.

    ``called``: how an edge is called.
    """

    def paint(axes: Axes) -> None:
        points = [(record.edges_version, value) for record in records for value in _drawn(record.edges)]
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=14, color=colour(0), alpha=0.65, linewidths=0, label="an edge")
        versions = [record.edges_version for record in records]
        for index, (key, label) in enumerate(STATISTICS.items(), start=1):
            values = [record.metrics.get(key, float("nan")) for record in records]
            style = {
                "marker": "o",
                "markersize": 4,
                "markeredgecolor": SURFACE_COLOUR,
                "markeredgewidth": 0.8,
            }
            axes.plot(versions, values, color=colour(index), linewidth=1.4, label=label, **style)  # type: ignore[arg-type]
        axes.set_xlabel("version")
        axes.set_ylabel(metric.name if metric.unit in ("", "%") else f"{metric.name} ({metric.unit})")
        axes.margins(x=0.02)
        whole_numbers(axes)
        legend(axes, 1 + len(STATISTICS))

    newest = records[-1]
    summary = ", ".join(
        f"{label} {quantity_text(newest.metrics.get(key), metric.unit)}" for key, label in STATISTICS.items()
    )
    text = (
        f"{metric.name} of {len(records)} versions at each edge. Version {newest.edges_version} at "
        f"{len(newest.edges)} edges: {summary}; the worst: {_worst_text(newest, called)}"
    )
    return draw(name, (2 * HALF_SIZE[0], HALF_SIZE[1]), text, paint)


def _drawn(edges: Mapping[str, float]) -> list[float]:
    ranked = sorted(edges, key=edges.__getitem__)
    return [edges[name] for name in evenly_spaced(ranked, MAX_DOTS)]
