"""The section about what a survey has found."""

from __future__ import annotations

from collections.abc import Iterable

from fl_aggregator.tools.report.markup import Child, Markup, join, meter, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, section
from fl_aggregator.tools.survey.cells import Cells
from fl_aggregator.tools.survey.noisy import NoisyResult
from fl_aggregator.tools.survey.noisy_text import meaning_text, tables, unanswered_text
from fl_aggregator.tools.survey.reading import read_survey
from fl_aggregator.tools.survey.result import Result
from fl_aggregator.tools.survey.text import (
    CELL_HEADS,
    NUMBER_HEADS,
    cell_rows,
    count,
    hidden_text,
    how_text,
    number_row,
)
from fl_shared.errors import UserError
from fl_shared.system.text import natural_order, number_text

TITLE = "What the edges have"


def is_survey(run: RunReport) -> bool:
    """Whether the run is a survey, and no training."""
    return run.parsed_settings is not None and run.parsed_settings.survey is not None


def survey(run: RunReport) -> Markup:
    """The labels, numbers and categories of the federation, as far as they are shown."""
    try:
        result = read_survey(run.path)
    except UserError as error:
        return section(TITLE, note=str(error))
    if isinstance(result, NoisyResult):
        return _noisy(result)
    return section(
        TITLE,
        tag("p", f"{result.examples:,} examples on {result.edges} edges."),
        None if result.labels is None else _cells("class", result.labels, result.examples, "Classes"),
        _numbers(result),
        _categories(result),
        _figures(result),
        note=f"{_sentence(how_text(result))} {_sentence(hidden_text(result))}",
    )


def _noisy(result: NoisyResult) -> Markup:
    found = [
        table((one.caption, *one.heads[1:]), one.rows[:MAX_REPORT_ROWS], caption=one.caption.capitalize())
        for one in tables(result)
    ]
    note = f"{_sentence(meaning_text(result))} {_sentence(unanswered_text(result))}"
    return section(TITLE, tag("p", f"{result.edges} edges, with differential privacy."), *found, note=note)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _bars(cells: Cells, total: int | None) -> Iterable[Child]:
    """One bar for each row of a table of cells."""
    numbers = [*cells.shown.values(), *([cells.others_examples] if cells.others else [])]
    for number in numbers:
        yield meter(0.0 if not total or number is None else number / total)


def _cells(head: str, cells: Cells, total: int | None, caption: str) -> Markup:
    rows = zip(cell_rows(cells, total), _bars(cells, total), strict=True)
    return table((head, *CELL_HEADS, ""), [(*row, bar) for row, bar in rows], caption=caption)


def _numbers(result: Result) -> Markup | None:
    rows = [(name, *number_row(column)) for name, column in result.numbers.items()][:MAX_REPORT_ROWS]
    return table(NUMBER_HEADS, rows, caption="Columns of numbers") if rows else None


def _categories(result: Result) -> Markup | None:
    found = []
    for name, column in list(result.categories.items())[:MAX_REPORT_ROWS]:
        text = f"{name}: {count(column.values)} values, {count(column.missing)} missing"
        found.append(tag("p", text))
        if column.cells is not None:
            found.append(_cells("value", column.cells, column.values, f"Values of {name}"))
    return join(found) if found else None


def _figures(result: Result) -> Markup | None:
    names = list(dict.fromkeys(name for figures in result.figures.values() for name in figures))
    if not names:
        return None
    rows = [
        [edge, *(number_text(result.figures[edge].get(name)) for name in names)]
        for edge in natural_order(result.figures)[:MAX_REPORT_ROWS]
    ]
    return tag(
        "details",
        tag("summary", f"{len(rows)} edges that share their own figures"),
        table(["edge", *names], rows, caption="Figures of edges that share their own"),
    )
