"""Operates a model that is served: looks at it again and again, and puts a candidate in its place that is better.

A look is a run of its own, which begins with the served model: the edges load their data anew and measure it. If it is
not as good as asked, they train a candidate from it, and measure that on the same holdouts. Until the next run begins
with another model, edges predict with this one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fl_aggregator.configuration.looking import Look, look_settings
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.values import parse_target
from fl_aggregator.round.looking import mean_of
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_aggregator.server.launch import Launch
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.run_directory import RunRecord, read_run
from fl_aggregator.storage.served_history import LookedAt, Outcome, Served, ServedHistory, now
from fl_shared.errors import UserError
from fl_shared.system.file_lock import FileLock
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.text import quantity_text

LOG: Final = logging.getLogger(__name__)

LOOK_DIRECTORY: Final = "look"
"""The run directory of the newest look, in that of the run whose model is served."""
LOCK_FILE: Final = ".serve.lock"


@dataclass
class Operation:
    """Operates the model of the finished run in ``directory``.

    ``retrain_below``: ``METRIC=VALUE``, what the served model must be worth. ``every``: seconds from the end of a look
    to the next one. ``rounds``: of a new training; null: as many as the run had. ``wait``: seconds for enough
    edges; null: as long as the run waited. Raises ``UserError`` if the directory
    has no model to serve, or another process operates it.
    """

    directory: Path
    retrain_below: str
    every: float
    rounds: int | None
    wait: float | None
    prefix: str
    require_sealed: bool = False
    history: ServedHistory = field(init=False)
    record: RunRecord = field(init=False)

    def __post_init__(self) -> None:
        self.record = finished_run(self.directory)
        self._metric = parse_target(self.retrain_below).metric
        self._settings(1, 0.0)
        self.history = ServedHistory(self.directory)
        self._lock = _lock(self.directory)

    def close(self) -> None:
        """Lets another process operate the model."""
        self._lock.release(delete=True)

    def begin(self) -> None:
        """Records that the model of the run is served, if nothing was served yet. Raises ``UserError``, ``OSError``."""
        if self.history.versions():
            return
        checkpoints = Checkpoints(self.directory)
        path = next((p for p in (checkpoints.served_path, checkpoints.model_path) if p.exists()), None)
        if path is None:
            raise UserError(f"DIR {self.directory}: has no {checkpoints.model_path.name}")
        self.history.serve(path, "first", "the model of the run")

    def seconds_to_look(self) -> float:
        """Returns how long it is until the next look: 0 if there was none, or one is overdue."""
        last = next((line for line in reversed(self.history.lines()) if isinstance(line, LookedAt)), None)
        if last is None:
            return 0.0
        left = (last.at + timedelta(seconds=self.every) - now()).total_seconds()
        return min(max(0.0, left), self.every)

    def launch(self) -> tuple[Launch, Callable[[], bool]]:
        """Prepares the next look, and returns what says whether another version is to be served meanwhile.

        What is left of an earlier look is deleted: one that was interrupted begins again. Raises ``UserError``.
        """
        served = self.history.versions()[-1]
        model, hold = self.history.checked_model(served), self.seconds_to_look()
        path = self.directory / LOOK_DIRECTORY
        try:
            if path.exists():
                shutil.rmtree(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: {error.filename}") from None
        at = datetime.now(UTC) + timedelta(seconds=hold)
        LOG.info("version %d is served; next look at %s UTC", served.version, f"{at:%Y-%m-%d %H:%M:%S}")
        launch = launches.new(self._settings(served.version, hold), path, model)
        return launch, self._follower(served)

    def _follower(self, served: Served) -> Callable[[], bool]:
        size = self.history.size

        def is_superseded() -> bool:
            nonlocal size
            if self.history.size == size:
                return False
            size = self.history.size
            return self.history.versions()[-1] != served

        return is_superseded

    def decide(self, state: Run) -> str:
        """Records what a look has found, and a better candidate as the served model. Returns it in a line.

        A version that was rolled back to meanwhile stays. Raises ``OSError``.
        """
        look, looked = state.settings.look, state.looked
        assert look is not None
        found = finding_of(state)
        outcome, detail, after = found.outcome, found.detail, ""
        if outcome == "replaced" and self.history.versions()[-1].version != look.served:
            outcome, detail = "kept", f"{detail}; but another version is served meanwhile"
        if outcome == "replaced":
            candidate = Checkpoints(self.directory / LOOK_DIRECTORY).best_path
            better = self.history.serve(candidate, "better", detail)
            after = f"; version {better.version} takes its place"
        self.history.add(
            LookedAt(
                at=now(),
                version=look.served,
                metric=self._metric,
                value=found.value,
                edges=0 if looked is None else len(looked.served),
                outcome=outcome,
                detail=detail,
            )
        )
        return f"looked at version {look.served}: {detail}{after}"

    def _settings(self, version: int, hold: float) -> Settings:
        return look_settings(
            self.record.settings,
            Look(served=version, hold=hold),
            target=self.retrain_below,
            rounds=self.rounds,
            wait=self.wait,
            prefix=self.prefix,
            require_sealed=self.require_sealed or self.record.settings.require_sealed,
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look has found. ``value``: of the served model's metric; null if it was not measured."""

    outcome: Outcome
    value: float | None
    detail: str


def finding_of(state: Run) -> Finding:
    """Returns what a look that has ended has found: pure, of its last state."""
    looked, metric = state.looked, state.target_metric
    if isinstance(state.phase, Failed):
        return Finding("failed", None, f"{state.phase.detail}; the model stays")
    if looked is None or metric is None or not isinstance(state.phase, Finished):
        return Finding("failed", None, "it was not measured; the model stays")
    scores = looked.served.values()
    value, unit = mean_of(scores), metric.unit
    if state.version == 0:
        text = f"{metric.name} {quantity_text(value, unit)} on {len(scores)} edges is good enough"
        return Finding("good", value, text)
    compared = looked.compared
    if compared is None:
        few = "too few edges have measured both it and a candidate; the model stays"
        return Finding("kept", value, f"{metric.name} {quantity_text(value, unit)}, but {few}")
    before, after = quantity_text(compared.before, unit), quantity_text(compared.after, unit)
    text = f"{metric.name} {before} → {after} on {compared.edges} edges"
    if looked.winner is not None:
        return Finding("replaced", value, f"a candidate is better: {text}")
    return Finding("kept", value, f"no candidate is better: {text}; the model stays")


def finished_run(directory: Path) -> RunRecord:
    """Returns the record of the run whose model is to be served. Raises ``UserError`` if it is not finished."""
    record = read_run(directory, "DIR")
    if record.ended is None:
        command = aggregator_command("start" if record.fleet is None else "simulate", "--resume", directory)
        raise UserError(f"DIR {directory}: run {record.run} is not finished; finish it first: {command}")
    return record


def _lock(directory: Path) -> FileLock:
    try:
        return FileLock(directory / LOCK_FILE)
    except BlockingIOError:
        raise UserError(f"DIR {directory}: is served by another process already") from None
    except OSError as error:
        raise UserError(f"DIR {directory}: {error.strerror}: {error.filename}") from None
