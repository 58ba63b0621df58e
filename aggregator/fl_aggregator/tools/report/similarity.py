"""The section about who is unlike the others, with the cosines of all pairs as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fl_aggregator.monitoring.views.similarity_map import groups_of
from fl_aggregator.round.events import Similarity
from fl_aggregator.tools.report.markup import Markup, join, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import section
from fl_shared.system.text import names_text, natural_order

MAX_MAP: Final = 40
"""Edges up to which the map is drawn; the history has all cosines."""
_CELL: Final = 34
_LABEL: Final = 90


def similarity(run: RunReport) -> Markup | None:
    """Who is unlike the others in the newest round that was compared; null if none was."""
    record = next((one for one in reversed(run.rounds) if one.similarity is not None), None)
    if record is None or record.similarity is None:
        return None
    found = record.similarity
    unlike = [f"edge {name}: {found.outliers[name]}" for name in natural_order(found.outliers)]
    times: dict[str, int] = {}
    compared = [one.similarity for one in run.rounds if one.similarity is not None]
    for one in compared:
        for name in one.outliers:
            times[name] = times.get(name, 0) + 1
    often = [f"{name} ({times[name]} of {len(compared)} rounds)" for name in natural_order(times)]
    groups = groups_of(found)
    note = (
        f"Updates of round {record.round}, before anything was made of them. "
        "The cosine is 1 for the same direction, 0 for unrelated ones, −1 for opposite ones. "
        "An edge's share of the plain mean is p⟨Δ, mean⟩ / ‖mean‖², with p its part of the examples; "
        "its influence is how far the mean would move without it, as a part of the mean's length."
    )
    return section(
        "Who is unlike the others",
        tag("p", tag("b", "Unlike the others: "), "; ".join(unlike) if unlike else "nobody"),
        tag("p", tag("b", "In all compared rounds: "), names_text(often)) if often else None,
        tag("p", tag("b", "Groups: "), "; ".join(names_text(group) for group in groups)) if groups else None,
        _map(found, [name for group in groups for name in group]) if groups else None,
        _table(found),
        note=note,
    )


def _table(found: Similarity) -> Markup:
    rows = []
    middle = "1" if found.median_length is None else f"1, which is an L2 norm of {found.median_length:g}"
    for index in sorted(range(len(found.clients)), key=lambda one: found.to_others[one]):
        name = found.clients[index]
        rows.append(
            [
                name,
                f"{found.to_others[index]:.2f}",
                _nearest(found, index),
                f"{found.lengths[index]:.2f}",
                f"{found.shares[index]:.1%}",
                f"{found.influences[index]:.1%}",
                f"⚠ {found.outliers[name]}" if name in found.outliers else "",
            ]
        )
    headings = ["edge", "cosine to the others", "nearest edge", "length", "share", "influence", "unlike"]
    return table(
        headings,
        rows,
        caption=f"Edges, the one that is least alike first (length: the median is {middle})",
        text_columns=frozenset({0, 2, 6}),
    )


def _nearest(found: Similarity, index: int) -> str:
    if not found.cosines:
        return "–"
    others = [other for other in range(len(found.clients)) if other != index]
    nearest = max(others, key=lambda other: found.cosines[index][other])
    return f"{found.clients[nearest]} ({found.cosines[index][nearest]:.2f})"


def _map(found: Similarity, order: Sequence[str]) -> Markup | None:
    """The cosines of all pairs as a drawing, edges of a group side by side; each cell has its number."""
    if len(order) > MAX_MAP:
        return None
    places = [found.clients.index(name) for name in order]
    cells: list[Markup] = []
    for row, one in enumerate(places):
        name = found.clients[one]
        label = f"⚠ {name}" if name in found.outliers else name
        y = row * _CELL + _CELL / 2 + 4
        cells.append(
            tag("text", label[:14], x=_LABEL - 6, y=y, text_anchor="end", font_size=12, fill="currentColor")
        )
        for column, other in enumerate(places):
            value = found.cosines[one][other]
            x = _LABEL + column * _CELL
            cells.append(
                tag(
                    "rect",
                    tag("title", f"{name} and {found.clients[other]}: {value:.2f}"),
                    x=x,
                    y=row * _CELL,
                    width=_CELL - 1,
                    height=_CELL - 1,
                    fill="var(--series-1)" if value >= 0 else "var(--series-2)",
                    fill_opacity=f"{abs(value) * 0.6:.2f}",
                )
            )
            digits = f"{value:.1f}".replace("0.", ".").replace("-", "−")
            cells.append(
                tag(
                    "text",
                    digits,
                    x=x + _CELL / 2,
                    y=y,
                    text_anchor="middle",
                    font_size=11,
                    fill="currentColor",
                )
            )
    size = len(places) * _CELL
    return tag(
        "svg",
        join(cells),
        viewBox=f"0 0 {_LABEL + size} {size}",
        width=min(_LABEL + size, 900),
        role="img",
        aria_label="Cosines of the updates of all pairs of edges, in the order of the groups",
    )
