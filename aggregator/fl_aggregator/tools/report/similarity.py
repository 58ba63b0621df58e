"""The section about who is unlike the others, with the cosines of all pairs as a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fl_aggregator.monitoring.views.similarity_map import groups_of
from fl_aggregator.round.events import Similarity
from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.markup import Markup, join, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, section
from fl_shared.system.text import names_text, natural_key, natural_order, shortened

MAX_MAP: Final = 40
"""Edges up to which the map is drawn; the history has all cosines."""
_CELL: Final = 34
_MAX_LABEL: Final = 18
"""Characters of an edge's name beside the map, with its marks."""
_LABEL: Final = 125


def similarity(run: RunReport) -> Markup | None:
    """Who is unlike the others: in the newest round that was compared, and in all; null if none was."""
    compared = [
        _Compared(record.round, record.similarity) for record in run.rounds if record.similarity is not None
    ]
    if not compared:
        return None
    called, newest = naming_of(run), compared[-1]
    found, rows = newest.found, _rows_of(compared)
    unlike = [f"edge {called(name)}: {found.outliers[name]}" for name in natural_order(found.outliers)]
    often = _often(rows, called)
    groups = groups_of(found)
    note = (
        "Updates are compared before anything is made of them. "
        "The cosine is 1 for the same direction, 0 for unrelated ones, −1 for opposite ones. "
        f"Length: the median is 1{_medians(compared, rows)}. "
        "An edge's share of the plain mean is p⟨Δ, mean⟩ / ‖mean‖², with p its part of the examples; "
        "its influence is how far the mean would move without it, as a part of the mean's length. "
        "Each row of the table is of the newest compared round that the edge was in; the map is of the newest of all. "
        "How often an edge was unlike the others is counted in the compared rounds that it was in."
    )
    return section(
        "Who is unlike the others",
        tag(
            "p",
            tag("b", f"Unlike the others in round {newest.round}: "),
            "; ".join(unlike) if unlike else "nobody",
        ),
        tag("p", tag("b", "Unlike the others in any compared round: "), names_text(often)) if often else None,
        tag(
            "p",
            tag("b", f"Groups in round {newest.round}: "),
            "; ".join(names_text([called(name) for name in group]) for group in groups),
        )
        if groups
        else None,
        _map(found, [name for group in groups for name in group], called) if groups else None,
        _table(rows, called),
        note=note,
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """A round whose updates were compared."""

    round: int
    found: Similarity


@dataclass(slots=True)
class _Row:
    """An edge in the newest compared round that it was in, with what was found of it in all.

    ``index``: its place in that round. ``times``: how many compared rounds it was in. ``unlike_in``: those rounds in
    which it was unlike the others, ascending.
    """

    name: str
    newest: _Compared
    index: int
    times: int
    unlike_in: list[int]


def _rows_of(compared: Sequence[_Compared]) -> list[_Row]:
    """All edges that were ever compared, the one that is least alike first."""
    rows: dict[str, _Row] = {}
    for one in compared:
        for index, name in enumerate(one.found.clients):
            row = rows.setdefault(name, _Row(name, one, index, 0, []))
            row.newest, row.index = one, index
            row.times += 1
            if name in one.found.outliers:
                row.unlike_in.append(one.round)
    return sorted(rows.values(), key=lambda row: row.newest.found.to_others[row.index])


def _often(rows: Sequence[_Row], called: Callable[[str], str]) -> list[str]:
    """The edges that were ever unlike the others, the one that most often was first, with the rounds."""
    unlike = [row for row in rows if row.unlike_in]
    unlike.sort(key=lambda row: (-len(row.unlike_in), natural_key(row.name)))
    return [
        f"{called(row.name)} in {len(row.unlike_in)} of {row.times} ({_rounds_text(row.unlike_in)})"
        for row in unlike
    ]


def _rounds_text(numbers: Sequence[int]) -> str:
    return f"round{'' if len(numbers) == 1 else 's'} {names_text([str(number) for number in numbers])}"


def _medians(compared: Sequence[_Compared], rows: Sequence[_Row]) -> str:
    """What the unit of lengths is in the rounds of the table, the newest first; empty if it is not known."""
    shown = {row.newest.round for row in rows}
    norms = [
        f"{one.found.median_length:g} in round {one.round}"
        for one in reversed(compared)
        if one.round in shown and one.found.median_length is not None
    ]
    return f", which is an L2 norm of {names_text(norms)}" if norms else ""


def _table(rows: Sequence[_Row], called: Callable[[str], str]) -> Markup:
    cells = []
    for row in rows[:MAX_REPORT_ROWS]:
        found, index = row.newest.found, row.index
        cells.append(
            [
                called(row.name),
                row.newest.round,
                f"{found.to_others[index]:.2f}",
                _nearest(found, index, called),
                f"{found.lengths[index]:.2f}",
                f"{found.shares[index]:.1%}",
                f"{found.influences[index]:.1%}",
                _unlike_text(row),
            ]
        )
    headings = [
        "edge",
        "round",
        "cosine to the others",
        "nearest edge",
        "length",
        "share",
        "influence",
        "unlike",
    ]
    count = f"{len(cells)} of {len(rows)} edges" if len(cells) < len(rows) else "Edges"
    return table(
        headings,
        cells,
        caption=f"{count}, the one that is least alike first",
        text_columns=frozenset({0, 3, 7}),
    )


def _unlike_text(row: _Row) -> str:
    """Why the edge is unlike the others in the row's round, and the other rounds in which it was."""
    reason = row.newest.found.outliers.get(row.name)
    earlier = [number for number in row.unlike_in if number != row.newest.round]
    texts = [*([] if reason is None else [reason]), *([_rounds_text(earlier)] if earlier else [])]
    return f"⚠ {'; also in '.join(texts)}" if reason else f"⚠ in {texts[0]}" if texts else ""


def _nearest(found: Similarity, index: int, called: Callable[[str], str]) -> str:
    if not found.cosines:
        return "–"
    others = [other for other in range(len(found.clients)) if other != index]
    nearest = max(others, key=lambda other: found.cosines[index][other])
    return f"{called(found.clients[nearest])}: {found.cosines[index][nearest]:.2f}"


def _map(found: Similarity, order: Sequence[str], called: Callable[[str], str]) -> Markup | None:
    """The cosines of all pairs as a drawing, edges of a group side by side; each cell has its number."""
    if len(order) > MAX_MAP:
        return None
    places = [found.clients.index(name) for name in order]
    cells: list[Markup] = []
    for row, one in enumerate(places):
        name = found.clients[one]
        label = f"{'⚠ ' if name in found.outliers else ''}{called(name)}"
        y = row * _CELL + _CELL / 2 + 4
        cells.append(
            tag(
                "text",
                shortened(label, _MAX_LABEL),
                x=_LABEL - 6,
                y=y,
                text_anchor="end",
                font_size=12,
                fill="currentColor",
            )
        )
        for column, other in enumerate(places):
            value = found.cosines[one][other]
            x = _LABEL + column * _CELL
            cells.append(
                tag(
                    "rect",
                    tag("title", f"{called(name)} and {called(found.clients[other])}: {value:.2f}"),
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
        style=f"max-width: {_LABEL + size}px",
        role="img",
        aria_label="Cosines of the updates of all pairs of edges, in the order of the groups",
    )
