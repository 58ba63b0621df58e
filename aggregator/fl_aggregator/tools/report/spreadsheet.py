"""The rounds of runs as CSV (RFC 4180, UTF-8): one row for each round, with the run's name first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.tools.report.reading import RunReport
from fl_shared.system.text import one_line

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Full-width ones as well, which spreadsheets accept."""


def csv_text(runs: Sequence[RunReport]) -> str:
    """The CSV text. Each metric and phase that any round has gets a column; lists are separated by spaces.

    A metric's column is named with its unit: ``mae [kWh]``. Fractions, which are shown as percentages elsewhere, are
    numbers from 0 to 1 and have none. A metric that has different units in several runs has as many columns.
    """
    rounds = [(run, record) for run in runs for record in run.rounds]
    metrics = sorted({(name, _unit(line, name)) for _, line in rounds for name in line.metrics})
    phases = list(dict.fromkeys(name for _, line in rounds for name in line.seconds))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(
        ["run", "round", "outcome", "reason", "version", "selected", "participants", "missing", "refused", "examples",
         "split",
         *(_escape_formula(f"{name} [{unit}]" if unit else name) for name, unit in metrics),
         *(f"seconds_{one_line(phase)}" for phase in phases), "virtual_seconds", "real_seconds",
         "bytes_up", "bytes_down", "encoding", "epsilon", "clip", "noise", "participant_ids", "missing_ids", "attack"]
    )  # fmt: skip
    for run, line in rounds:
        writer.writerow(
            [_escape_formula(run.name), line.round, line.outcome, _escape_formula(line.reason or ""),
             "" if line.version is None else line.version, len(line.cohort), len(line.participants),
             len(line.missing), sum(sum(reasons.values()) for reasons in line.refused.values()), line.examples,
             line.split or "",
             *(line.metrics.get(name, "") if _unit(line, name) == unit else "" for name, unit in metrics),
             *(line.seconds.get(name, "") for name in phases),
             *("" if value is None else value for value in (line.virtual_seconds, line.real_seconds)),
             line.bytes.up, line.bytes.down, line.encoding,
             *("" if line.privacy is None else getattr(line.privacy, name) for name in ("epsilon", "clip", "noise")),
             _escape_formula(" ".join(line.participants)), _escape_formula(" ".join(line.missing)),
             _escape_formula(run.attack or "")]
        )  # fmt: skip
    return buffer.getvalue()


def _unit(line: RoundRecord, name: str) -> str:
    unit = line.unit_of(name)
    return "" if unit == "%" else unit


def _escape_formula(text: str) -> str:
    """Text on one line, marked if a spreadsheet would run it as a formula, since a peer may have chosen it."""
    line = one_line(text)
    return f"'{line}" if line.lstrip().startswith(_FORMULA_STARTS) else line
