"""The result of a survey under a privacy budget as lines, and as tables that a page shows, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fl_aggregator.monitoring.views.privacy import spent_line
from fl_aggregator.tools.survey.noisy import Estimate, NoisyQuantile, NoisyResult
from fl_aggregator.tools.survey.result import FRACTIONS
from fl_aggregator.tools.survey.text import percent, table_lines
from fl_shared.system.text import names_text, number_text, one_line

_UNKNOWN: Final = ("–", "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: ``rows`` under ``heads``."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def noisy_lines(result: NoisyResult) -> Iterator[str]:
    """Yields the lines, with tables in columns."""
    yield f"survey of {result.edges} edges with differential privacy; task {one_line(result.task)}"
    yield spent_line(result.privacy)
    yield meaning_text(result)
    yield unanswered_text(result)
    for one in tables(result):
        yield ""
        yield from table_lines((one.caption, *one.heads[1:]), one.rows)


def meaning_text(result: NoisyResult) -> str:
    """Says what the figures are about."""
    return (
        "shares are means over the edges, of which each counts the same, however many examples it has; "
        f"±: standard error of the noise; sums of at least {result.least} edges"
    )


def unanswered_text(result: NoisyResult) -> str:
    """Says what is not shown under a budget, and what would need a range."""
    unbounded = [name for name, column in result.numbers.items() if column.range is None]
    text = "not answered with noise: the number of all examples, figures of one edge, minima and maxima"
    if not unbounded:
        return text
    return (
        f"{text}; mean, deviation and quantiles of {names_text(unbounded, 5)}: they need a public range "
        f"(--range {one_line(unbounded[0])}=LOW:HIGH)"
    )


def tables(result: NoisyResult) -> Iterator[Table]:
    """Yields the tables."""
    quantiles = tuple(percent(fraction) for fraction in FRACTIONS)
    sizes = tuple(
        f"{one.low:g}" if one.low == one.high else f"{one.low:g}–{one.high:g}" for one in result.examples
    )
    heads = ("", *quantiles, "± of edges")
    yield Table("quantile", heads, [("examples of an edge", *sizes, _ranks(result.examples))])
    if result.labels is not None:
        yield Table("class", ("class", "share", "±"), _shares(result.labels))
    if result.numbers:
        rows = [
            (
                one_line(name),
                *_share(column.missing),
                *_number(column.mean),
                *_number(column.deviation),
                *([_middle(one) for one in column.quantiles] or ["–"] * len(quantiles)),
                *(_errors(column.quantiles) if column.quantiles else _UNKNOWN),
            )
            for name, column in result.numbers.items()
        ]
        heads = ("number", "missing", "±", "mean", "±", "deviation", "±", *quantiles, "±", "± of values")
        yield Table("number", heads, rows)
    for name, column in result.categories.items():
        rows = [("(missing)", *_share(column.missing)), *_shares(column.values)]
        yield Table(f"value of {one_line(name)}", ("value", "share", "±"), rows)


def _shares(shares: dict[str, Estimate]) -> list[tuple[str, ...]]:
    return [(one_line(name), *_share(one)) for name, one in shares.items()]


def _share(share: Estimate) -> tuple[str, str]:
    return f"{100 * share.value:.1f} %", f"{100 * share.error:.1f} %"


def _number(estimate: Estimate | None) -> tuple[str, str]:
    return _UNKNOWN if estimate is None else (number_text(estimate.value), f"{estimate.error:.2g}")


def _middle(quantile: NoisyQuantile) -> str:
    return number_text((quantile.low + quantile.high) / 2)


def _errors(quantiles: tuple[NoisyQuantile, ...]) -> tuple[str, str]:
    """Half of a bin's width, and the largest error of a rank."""
    return f"{(quantiles[0].high - quantiles[0].low) / 2:.3g}", _ranks(quantiles)


def _ranks(quantiles: tuple[NoisyQuantile, ...]) -> str:
    return f"{100 * max(one.rank_error for one in quantiles):.1f} %"
