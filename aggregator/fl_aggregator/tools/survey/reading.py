"""Reads the sums of a survey in its run directory. It locks and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.round.events import UpdateStored
from fl_aggregator.storage import journal
from fl_aggregator.storage.checkpoint import Checkpoints, read_arrays, read_safetensors
from fl_aggregator.storage.run_directory import HISTORY_FILE, read_run
from fl_aggregator.tools.survey.noisy import NoisyResult, noisy_result
from fl_aggregator.tools.survey.result import Result, result_of
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import format_task
from fl_shared.survey.layout import Sums
from fl_shared.survey.proportions import Proportions
from fl_shared.system.files import read_lines

NO_CELLS: Final = "--cells: has no meaning with --dp: noise hides small numbers of examples"
_ACCEPTED: Final = journal.line_prefix(UpdateStored)


class _Update(BaseModel):
    client: str
    train: dict[str, float] = {}


class _Line(BaseModel):
    update: _Update


class _State(BaseModel):
    updates: dict[str, _Update] = {}


class _Snapshot(BaseModel):
    snapshot: _State


def read_survey(path: Path, cells: int | None = None) -> Result | NoisyResult:
    """Returns the result of the survey in ``path``. ``cells``: instead of those with which it was begun.

    Raises ``UserError`` if it contains no survey, or one that has no sums yet, or if a file is damaged.
    """
    record = read_run(path, "DIR")
    settings, checkpoints = record.settings, Checkpoints(path)
    survey = settings.survey
    try:
        numbers = [number for number in checkpoints.versions() if checkpoints.state_path(number).exists()]
    except OSError as error:
        raise UserError(f"DIR {path}: {error.strerror}: {error.filename}") from None
    if survey is None or not numbers:
        what = "contains a training" if survey is None else "contains a survey without its sums"
        raise UserError(f"DIR {path}: {what}, expected the run directory of a survey that has finished")
    if cells is not None:
        if survey.private:
            raise UserError(NO_CELLS)
        survey = survey.model_copy(update={"cells": cells})
    task = format_task(settings.task, settings.task_option)
    state = checkpoints.state_path(numbers[-1])
    manifest = read_safetensors(checkpoints.version_path(numbers[-1])).manifest
    try:
        vector = read_arrays(state)[1]["sums"]
        if settings.privacy is not None:
            found = Proportions.read(vector, manifest, survey.terms)
            spent, edges = _release(path)
            return noisy_result(found, survey, settings.privacy, spent, edges, record.run, task)
        sums = Sums.read(vector, manifest, survey.terms)
    except (KeyError, ValueError, OverflowError) as error:
        raise UserError(f"{state}: contains no sums of a survey: {error}") from None
    return result_of(sums, survey, record.run, task, masked=settings.masked, figures=_figures(path))


def _release(path: Path) -> tuple[m.PrivacySpent, int]:
    """Returns what the release of a private survey has spent, and the number of edges in it."""
    for one in read_records(json.loads(line) for line in read_lines(path / HISTORY_FILE)):
        if one.version and one.privacy is not None:
            return one.privacy, len(one.participants)
    raise UserError(f"DIR {path}: the history has no version, expected a survey that has finished")


def _figures(path: Path) -> dict[str, dict[str, float]]:
    """Returns what edges have told of themselves with their updates, by edge."""
    found: dict[str, dict[str, float]] = {}
    for line in read_lines(path / journal.FILE_NAME):
        try:
            if line.startswith(journal.SNAPSHOT_PREFIX):
                updates = list(_Snapshot.model_validate_json(line).snapshot.updates.values())
            elif line.startswith(_ACCEPTED):
                updates = [_Line.model_validate_json(line).update]
            else:
                continue
        except ValidationError:  # a line that was not written completely
            continue
        found |= {update.client: update.train for update in updates if update.train}
    return found
