"""The result of a survey as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fl_aggregator.tools.survey.cells import Cells
from fl_aggregator.tools.survey.result import FRACTIONS, NumberColumn, Result
from fl_shared.system.text import natural_order, number_text, one_line

MAX_CELL: Final = 32
"""Characters of a cell."""
CELL_HEADS: Final = ("examples", "share")


def lines(result: Result) -> Iterator[str]:
    """Yields the lines, with tables in columns."""
    yield f"survey of {result.edges} edges: {result.examples:,} examples; task {one_line(result.task)}"
    yield f"{how_text(result)}; {hidden_text(result)}"
    if result.labels is not None:
        yield ""
        yield from table_lines(("class", *CELL_HEADS), cell_rows(result.labels, result.examples))
    if result.numbers:
        yield ""
        yield from table_lines(
            NUMBER_HEADS, [(name, *number_row(column)) for name, column in result.numbers.items()]
        )
    for name, column in result.categories.items():
        yield ""
        present = f"values {count(column.values)}, missing {count(column.missing)}"
        yield f"category {one_line(name)}: {present}"
        if column.cells is not None:
            yield from table_lines(("value", *CELL_HEADS), cell_rows(column.cells, column.values))
    if result.figures:
        yield ""
        yield "figures of edges that share their own (fl-edge --survey each):"
        for edge in natural_order(result.figures):
            figures = result.figures[edge].items()
            yield f"  {edge}: " + ", ".join(
                f"{one_line(name)} {number_text(value)}" for name, value in figures
            )


def how_text(result: Result) -> str:
    """Says who could see more than the sums."""
    if result.masked:
        return f"masked: nobody has seen the part of any one edge; sums of at least {result.least} edges"
    seen = "the aggregator received all edges' parts, added them up and kept none"
    return f"sums of at least {result.least} edges; {seen}"


def hidden_text(result: Result) -> str:
    """Says what is not shown."""
    if result.cells == 1:
        return "all numbers are shown"
    return f"figures about fewer than {result.cells} examples are not shown (–)"


def percent(fraction: float) -> str:
    """Returns the name of a quantile."""
    return "median" if fraction == 0.5 else f"{100 * fraction:g} %"


def count(number: int | None) -> str:
    """Returns a number of examples; a dash for one that is not shown."""
    return "–" if number is None else f"{number:,}"


def share(number: int | None, total: int | None) -> str:
    """Returns which part of ``total`` it is."""
    return "–" if number is None or not total else f"{100 * number / total:.1f} %"


def error_text(column: NumberColumn) -> str:
    """Says how far a quantile may be off: half the width of its bin."""
    if not column.quantiles:
        return "–"
    return "2.2 %" if column.range is None else f"{column.quantiles[0].error:.3g}"


def cell_rows(cells: Cells, total: int | None) -> list[tuple[str, str, str]]:
    """Returns the rows of a table of cells: name, examples, share."""
    rows = [(one_line(name), count(number), share(number, total)) for name, number in cells.shown.items()]
    if cells.others:
        together = cells.others_examples
        rows.append((f"({cells.others} not shown)", count(together), share(together, total)))
    return rows


NUMBER_HEADS: Final = ("number", "values", "missing", "mean", "deviation", *map(percent, FRACTIONS), "±")


def number_row(column: NumberColumn) -> tuple[str, ...]:
    """Returns the row of a column of numbers, without its name."""
    found = {one.fraction: one.value for one in column.quantiles}
    return (
        count(column.values),
        count(column.missing),
        *map(number_text, (column.mean, column.deviation, *map(found.get, FRACTIONS))),
        error_text(column),
    )


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields a table in columns."""
    short = [tuple(cell[:MAX_CELL] for cell in row) for row in (heads, *rows)]
    widths = [max(len(row[place]) for row in short) for place in range(len(heads))]
    for row in short:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  " + "  ".join(cells)
