"""What a job that failed is answered with."""

from __future__ import annotations

import logging
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Final

from fl_edge.errors import (
    BudgetSpentError,
    CancelledError,
    DataCorruptError,
    DataMismatchError,
    DataMissingError,
    EdgeError,
    ManifestMismatchError,
    PayloadError,
    TaskOptionsError,
    UnknownTaskError,
    UnmaskableError,
    UnusableModelError,
)
from fl_edge.tasks.code_errors import message_of, place_of
from fl_edge.workers.jobs import FailureOutcome

LOG: Final = logging.getLogger(__name__)

MAX_MESSAGE: Final = 1000
"""Characters, as many as a message may have (``messages.Text``)."""
MAX_TRACE: Final = 20_000
"""Characters of a traceback that are kept: the last ones."""


def failure_of(error: BaseException) -> FailureOutcome:
    """Returns the outcome of a job that has raised ``error``; an unexpected one with its traceback."""
    message = message_of(error)[:MAX_MESSAGE]
    match error:
        case CancelledError():
            return FailureOutcome("cancelled", message)
        case DataMismatchError():
            return FailureOutcome("data-mismatch", message)
        case DataCorruptError():
            return FailureOutcome("data-corrupt", message)
        case ManifestMismatchError():
            return FailureOutcome("other-model", message)
        case DataMissingError():
            return FailureOutcome("data-missing", message)
        case PayloadError():
            return FailureOutcome("bad-payload", message)
        case TaskOptionsError():
            return FailureOutcome("task-options", message)
        case UnknownTaskError():
            return FailureOutcome("unknown-task", message)
        case UnmaskableError():
            return FailureOutcome("unmaskable", message)
        case BudgetSpentError():
            return FailureOutcome("budget-spent", message)
        case UnusableModelError():
            return FailureOutcome("unusable-model", message)
        case EdgeError():
            return FailureOutcome("failed", message)
        case ValueError():  # also of a library that the task has called
            return FailureOutcome("failed", _with_place(message, place_of(error)))
        case _:
            place = traceback.extract_tb(error.__traceback__)[-1:]
            last = f" ({Path(place[0].filename).name}, line {place[0].lineno})" if place else ""
            text = _with_place(f"{type(error).__name__}: {message}", place_of(error) or last)
            trace = "".join(traceback.format_exception(error))[-MAX_TRACE:]
            return FailureOutcome("failed", text, trace.rstrip())


def _with_place(text: str, place: str) -> str:
    return text[: MAX_MESSAGE - len(place)] + place


@lru_cache(maxsize=64)
def log_trace(trace: str) -> None:
    """Logs the traceback of an unexpected error once, though a job that fails is done again and by each edge."""
    LOG.error("a task's code failed unexpectedly (this traceback is shown once):", extra={"exception": trace})
