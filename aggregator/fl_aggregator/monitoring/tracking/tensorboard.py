"""Writes a run's curves to ``DIR/tensorboard``; ``tensorboard --logdir runs`` shows those of all runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from fl_aggregator.monitoring.tracking.event_file import EventFile, steps
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.visibility import marks
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.state import Run
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.protocol import messages as m

FOLDER: Final = "tensorboard"
PRIVACY_SCALARS: Final = ("epsilon", "advantage", "clip", "noise")


class TensorBoard:
    """Writes event files whose step is the round's number, a new file for each incarnation."""

    name = "tensorboard"

    def __init__(self, run_directory: Path) -> None:
        self._folder = run_directory / FOLDER
        self._file_name = ""
        self._file: EventFile | None = None
        self._last_round = 0
        self._marks: dict[str, str] = {}

    def begin(
        self,
        run: RunRecord,
        earlier: Iterable[RoundRecord],
        runtime_metrics: Callable[[], RuntimeMetrics],  # noqa: ARG002
    ) -> None:
        """Writes the rounds of ``earlier`` that no event file contains yet."""
        self._marks = marks(run)
        event_files = sorted(self._folder.glob("events.out.tfevents.*"))
        self._last_round = max((step for file in event_files for step in steps(file)), default=0)
        # TensorBoard reads the files in the order of their names.
        self._file_name = f"events.out.tfevents.{int(time.time()):010d}.{run.incarnation}"
        for record in earlier:
            if record.round > self._last_round:  # written to the history, but not yet here, before a crash
                self.log_round(record)

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        """Does nothing: only complete rounds are written."""

    def log_round(self, record: RoundRecord) -> None:
        """Writes the numbers of a round, and discards those of the same and later rounds if there are any."""
        if self._file is None:  # opened late, so that a run that ends before its first round leaves no file
            self._folder.mkdir(exist_ok=True)
            self._file = EventFile(self._folder / self._file_name)
        number = record.round
        if number <= self._last_round:
            self._file.discard_from(number)
        self._file.scalars(number, scalars(record))
        for name, text in self._marks.items():
            self._file.text(number, name, text)
        self._last_round = number

    def close(self, outcome: str | None) -> None:  # noqa: ARG002
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def scalars(record: RoundRecord) -> dict[str, float]:
    """A round's numbers by tag: metrics of the evaluation under its split, other metrics under ``edges/``."""
    values: dict[str, float] = {}
    measured = {m.LOSS.name, *(metric.name for metric in record.declared)}
    for name, value in record.metrics.items():
        evaluated = name in measured or name == "evaluated_examples"
        values[f"{record.split}/{name}" if evaluated else f"edges/{name.removeprefix('edges_')}"] = value
    if record.version is not None:
        values["version"] = record.version
    values |= {f"seconds/{phase}": seconds for phase, seconds in record.seconds.items()}
    values |= {"bytes/up": record.bytes.up, "bytes/down": record.bytes.down}
    values["round/participants"] = len(record.participants)
    values["round/missing"] = len(record.missing)
    values["round/examples"] = record.examples
    if record.privacy is not None:
        values |= {f"privacy/{name}": getattr(record.privacy, name) for name in PRIVACY_SCALARS}
    values["round/refused"] = sum(sum(reasons.values()) for reasons in record.refused.values())
    return values
