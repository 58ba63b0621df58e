"""The rounds that have ended, as curves that are small enough to retain: the content of ``fl/history``. Pure.

However long a run is, at most ``messages.MAX_HISTORY`` rows are kept: one of every 1, 2, 4 … rounds, and the
last.
"""

from __future__ import annotations

from typing import Final

from fl_aggregator.monitoring.views.history_row import HistoryRow
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_shared.protocol import messages as m

MAX_HISTORY_ROWS: Final = m.MAX_HISTORY - 1
"""Number of rows that are kept, without the newest."""
MAX_RECENT_ROUNDS: Final = 100
"""Number of the last rounds whose whole records are kept; a person reads no more."""


class RoundHistory:
    """Keeps thinned rows in the order of their rounds.

    ``round_count``: how many rounds have been added. ``compared``: the newest one whose updates were compared.
    """

    def __init__(self) -> None:
        self._rows: dict[int, HistoryRow] = {}
        self._recent: dict[int, RoundRecord] = {}
        self.round_count = 0
        self.compared: RoundRecord | None = None
        self._row_interval = 1
        self._last_row: HistoryRow | None = None

    def add(self, record: RoundRecord) -> None:
        """Adds a round that has ended, or replaces a recent round's record, as after its evaluation."""
        row = HistoryRow.of(record)
        if record.similarity is not None and (self.compared is None or record.round >= self.compared.round):
            self.compared = record
        self._recent[row.round] = record
        if len(self._recent) > MAX_RECENT_ROUNDS:
            del self._recent[min(self._recent)]
        if row.round in self._rows:
            self._rows[row.round] = row
        elif self._last_row is None or row.round > self._last_row.round:
            if self.round_count % self._row_interval == 0:
                self._rows[row.round] = row
                self._downsample()
            self.round_count += 1
        if self._last_row is None or row.round >= self._last_row.round:
            self._last_row = row

    def _downsample(self) -> None:
        if len(self._rows) > MAX_HISTORY_ROWS:
            self._row_interval *= 2
            self._rows = dict(list(self._rows.items())[::2])

    def recent(self) -> dict[int, RoundRecord]:
        """The records of the last rounds by number, at most ``MAX_RECENT_ROUNDS``."""
        return dict(self._recent)

    def rows(self) -> tuple[HistoryRow, ...]:
        """The rows, at most ``messages.MAX_HISTORY``; the first and the last round are among them."""
        rows = tuple(self._rows.values())
        if self._last_row is not None and (not rows or rows[-1].round != self._last_row.round):
            rows = (*rows, self._last_row)
        return rows
