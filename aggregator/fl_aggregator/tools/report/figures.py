"""The figures of a report. Each has a text alternative, and the page also shows its numbers as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.phases import ROUND_PHASES
from fl_aggregator.tools.report.drawing import (
    GRID_COLOUR,
    MUTED_COLOUR,
    SERIES_COLOURS,
    SURFACE_COLOUR,
    TEXT_COLOUR,
    colour,
    draw,
)
from fl_aggregator.tools.report.markup import Markup
from fl_aggregator.tools.report.reading import RunReport
from fl_shared.protocol import messages as m
from fl_shared.system.text import quantity_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALF_SIZE: Final = (4.7, 2.9)
MAX_FIGURE_EDGES: Final = 80
"""Number of edges in a figure. If there are more, it shows this many, evenly chosen in the order of names."""
MAX_ROUNDS: Final = 120
"""Number of rounds in the grid of participation: the newest ones."""
MAX_LABEL: Final = 24
MAX_MARKED_POINTS: Final = 40
"""Number of points up to which a curve has a marker at each."""
PHASE_NAMES: Final = tuple(phase.name for phase in ROUND_PHASES)

Curve = tuple[str, Sequence[float], Sequence[float]]
"""The name of a curve, and the x and y coordinates of its points."""


def curves(
    name: str,
    title: str,
    lines: Sequence[Curve],
    *,
    x_label: str,
    metric: m.MetricDeclaration,
    size: tuple[float, float] = HALF_SIZE,
) -> Markup:
    """Curves of ``metric`` in one figure. ``x_label``: the label of the x axis."""

    def paint(axes: Axes) -> None:
        for index, (label, x, y) in enumerate(lines):
            style: dict[str, Any] = {"color": colour(index), "label": shortened(label, MAX_LABEL)}
            if index >= SERIES_COLOURS:
                style["linestyle"] = "--"
            if len(x) <= MAX_MARKED_POINTS:
                style |= {
                    "marker": "o",
                    "markersize": 4.5,
                    "markeredgecolor": SURFACE_COLOUR,
                    "markeredgewidth": 1,
                }
            axes.plot(x, y, **style)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.margins(x=0.02)
        if x_label == "round":
            whole_numbers(axes)
        if metric.unit not in ("", "%"):
            axes.set_ylabel(metric.unit)
        if (metric.minimum, metric.maximum) == (0, 1):
            minimum = min((min(y) for _, _, y in lines if len(y)), default=0.0)
            axes.set_ylim(max(0.0, min(0.9, minimum - 0.05)), 1.0)
        elif all(min(y, default=0) >= 0 for _, _, y in lines):
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            legend(axes, len(lines))

    summary = "; ".join(f"{label}: {_range_text(y, metric.unit)}" for label, _, y in lines)
    return draw(name, size, f"{title} by {x_label}. {summary}", paint)


def whole_numbers(axes: Axes) -> None:
    """Puts ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _range_text(values: Sequence[float], unit: str) -> str:
    if not len(values):
        return "nothing measured"
    return f"from {quantity_text(values[0], unit)} to {quantity_text(values[-1], unit)}"


def legend(axes: Axes, entries: int) -> None:
    """Adds a legend below the axes, where it covers nothing."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=min(entries, 4))


def stacked_bars(
    name: str, title: str, unit: str, rounds: Sequence[RoundRecord],
    quantities: Sequence[tuple[str, Callable[[RoundRecord], float]]], *, size: tuple[float, float] = HALF_SIZE,
) -> Markup:  # fmt: skip
    """One bar for each round, stacked from ``quantities``; areas if there are more than ``MAX_ROUNDS`` rounds."""
    x = [record.round for record in rounds]
    heights = [(label, [quantity(line) for line in rounds]) for label, quantity in quantities]
    heights = [(label, values) for label, values in heights if any(values)]

    def paint(axes: Axes) -> None:
        if len(x) > MAX_ROUNDS:
            colours = [colour(index) for index in range(len(heights))]
            axes.stackplot(
                x, *(values for _, values in heights), labels=[label for label, _ in heights], colors=colours,
                linewidth=0,
            )  # fmt: skip
        else:
            bottoms = [0.0] * len(x)
            for index, (label, values) in enumerate(heights):
                axes.bar(
                    x,
                    values,
                    0.78,
                    bottom=bottoms,
                    label=label,
                    color=colour(index),
                    edgecolor=SURFACE_COLOUR,
                    linewidth=0.8,
                )
                bottoms = [a + b for a, b in zip(bottoms, values, strict=True)]
        axes.set_title(title)
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        whole_numbers(axes)
        if len(heights) > 1:
            legend(axes, len(heights))

    summary = "; ".join(f"{label}: {sum(values):.4g} {unit} in total" for label, values in heights)
    return draw(name, size, f"{title} by round. {summary}", paint)


def evenly_spaced(names: Sequence[str], limit: int = MAX_FIGURE_EDGES) -> list[str]:
    """At most ``limit`` of the names at even distances, the first and the last among them."""
    if len(names) <= limit:
        return list(names)
    return [names[round(index * (len(names) - 1) / (limit - 1))] for index in range(limit)]


def participation(
    name: str, rounds: Sequence[RoundRecord], edges: Sequence[str], called: Callable[[str], str]
) -> Markup:
    """A row for each edge, named by ``called``, and a column for each round: in, missing, not needed, not selected."""
    row = {edge: index for index, edge in enumerate(edges)}
    participating, missing, surplus = (
        [(at, row[name]) for at, names in enumerate(groups) for name in names if name in row]
        for groups in (
            [record.participants for record in rounds],
            [r.missing_without_surplus for r in rounds],
            [r.surplus for r in rounds],
        )
    )
    width = min(9.6, 1.4 + 0.28 * max(8, len(rounds)))
    height = 0.9 + 0.2 * max(4, len(edges))
    marker_area = min(64.0, (0.62 * 72 * min(0.2, (width - 1.2) / len(rounds))) ** 2)

    def paint(axes: Axes) -> None:
        axes.grid(visible=False)
        x, y = zip(*[(at, r) for at in range(len(rounds)) for r in row.values()], strict=True)
        axes.scatter(x, y, s=marker_area * 0.12, color=GRID_COLOUR, linewidths=0)
        for points, style, label in (
            (participating, {"marker": "s", "color": colour(0), "linewidths": 0}, "in"),
            (missing, {"marker": "x", "color": colour(1), "linewidths": 1.6}, "missing"),
            (
                surplus,
                {"marker": "s", "facecolor": "none", "edgecolor": MUTED_COLOUR, "linewidths": 1},
                "not needed",
            ),
        ):
            if points:
                across, down = zip(*points, strict=True)
                axes.scatter(across, down, s=marker_area, label=label, **style)  # type: ignore[arg-type]
        _edge_names(axes, [called(edge) for edge in edges])
        axes.set_xlim(-0.7, len(rounds) - 0.3)
        axes.set_xlabel("round")
        whole_numbers(axes)
        axes.xaxis.set_major_formatter(
            lambda at, _: str(rounds[int(at)].round) if 0 <= at < len(rounds) else ""
        )
        if participating or missing or surplus:
            legend(axes, 3)

    summary = f"{len(participating)} times an edge's update was in, {len(missing)} times it was missing"
    return draw(
        name,
        (width, height),
        f"Participation of {len(edges)} edges in {len(rounds)} rounds: {summary}",
        paint,
    )


def _edge_names(axes: Axes, edges: Sequence[str]) -> None:
    axes.set_yticks(range(len(edges)), [shortened(edge, MAX_LABEL) for edge in edges], fontsize=8)
    axes.set_ylim(len(edges) - 0.4, -0.6)


def labels(name: str, counts: Sequence[tuple[str, dict[str, int]]], classes: Sequence[str]) -> Markup:
    """A disc for each edge and class, whose area is proportional to the number of examples."""
    points = [
        (x, y, label_counts[label])
        for x, (_, label_counts) in enumerate(counts)
        for y, label in enumerate(classes)
        if label_counts.get(label)
    ]
    largest_count = max((number for _, _, number in points), default=1)
    wide, high = min(9.6, 1.3 + 0.34 * len(counts)), 0.9 + 0.26 * len(classes)
    cell = 72 * min((wide - 1.2) / max(len(counts), 1), 0.26)

    def paint(axes: Axes) -> None:
        axes.grid(visible=False)
        if points:
            x, y, size = zip(*points, strict=True)
            area = [max(1.2, (0.92 * cell) ** 2 * number / largest_count) for number in size]
            axes.scatter(x, y, s=area, color=colour(0), linewidths=0)
        names = [shortened(edge, MAX_LABEL) for edge, _ in counts]
        crowded = len(names) > 30 or max(map(len, names), default=0) > 3
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=90 if crowded else 0)
        axes.set_yticks(range(len(classes)), [shortened(label, MAX_LABEL) for label in classes])
        axes.set_xlim(-0.7, len(names) - 0.3)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlabel("edge")

    summary = f"the largest disc is {largest_count} examples"
    return draw(name, (wide, high), f"Examples of each label on {len(counts)} edges; {summary}", paint)


def values_by_edge(
    name: str, metric: m.MetricDeclaration, edge_values: Sequence[tuple[str, float]], overall: float | None
) -> Markup:
    """The metric on each edge as a bar; a histogram if there are more than ``MAX_FIGURE_EDGES`` edges.

    ``overall``: its value in the run, null if it was not measured.
    """
    values = [value for _, value in edge_values]
    is_fraction = (metric.minimum, metric.maximum) == (0, 1)

    def paint(axes: Axes) -> None:
        if len(edge_values) > MAX_FIGURE_EDGES:
            axes.hist(
                values,
                bins=40,
                range=(0, 1) if is_fraction else None,
                color=colour(0),
                edgecolor=SURFACE_COLOUR,
                linewidth=0.8,
            )
            axes.set_ylabel("edges")
        else:
            ranked = sorted(edge_values, key=lambda item: item[1])
            axes.grid(visible=True, axis="x")
            axes.grid(visible=False, axis="y")
            axes.barh(range(len(ranked)), [value for _, value in ranked], 0.72, color=colour(0))
            axes.set_yticks(
                range(len(ranked)), [shortened(edge, MAX_LABEL) for edge, _ in ranked], fontsize=8
            )
            axes.set_ylim(-0.6, len(ranked) - 0.4)
        if is_fraction:
            axes.set_xlim(0, 1)
        axes.set_xlabel(metric.name if metric.unit in ("", "%") else f"{metric.name} ({metric.unit})")
        if overall is not None:
            axes.axvline(overall, color=TEXT_COLOUR, linewidth=1.2, linestyle=(0, (4, 3)))
            side = "right" if overall > sum(axes.get_xlim()) / 2 else "left"
            axes.annotate(
                f" the run's: {quantity_text(overall, metric.unit)} ", (overall, 1.0),
                xycoords=("data", "axes fraction"), va="bottom", ha=side, fontsize=8.5, color=MUTED_COLOUR,
            )  # fmt: skip

    height = 2.9 if len(edge_values) > MAX_FIGURE_EDGES else 0.9 + 0.19 * max(4, len(edge_values))
    low, high = (quantity_text(value, metric.unit) for value in (min(values), max(values)))
    return draw(
        name,
        (HALF_SIZE[0], height),
        f"{metric.name} of {len(edge_values)} edges on their holdouts: lowest {low}, highest {high}",
        paint,
    )


def metric_against(
    run: RunReport, quantity: Callable[[RoundRecord], float], metric: str
) -> tuple[list[float], list[float]]:
    """The measured values of a metric (y), against the sum of ``quantity`` over all rounds so far (x)."""
    cumulative = accumulate(quantity(record) for record in run.rounds)
    points = [
        (x, line.metrics[metric])
        for x, line in zip(cumulative, run.rounds, strict=True)
        if metric in line.metrics
    ]
    return [x for x, _ in points], [y for _, y in points]
