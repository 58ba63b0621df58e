"""What a job that failed is answered with."""

from __future__ import annotations

import traceback
from typing import Final

from fl_edge.errors import (
    CancelledError,
    DataCorruptError,
    DataMismatchError,
    DataMissingError,
    EdgeError,
    ManifestMismatchError,
    PayloadError,
    TaskOptionsError,
    UnknownTaskError,
    UnusableModelError,
)
from fl_edge.workers.jobs import FailureOutcome
from fl_shared.system.text import one_line

MAX_MESSAGE: Final = 1000
"""Characters, as many as a message may have (``messages.Text``)."""


def _text_of(error: BaseException) -> str:
    try:
        text = one_line(str(error))
    except Exception:  # a foreign class may raise any error
        text = ""
    return text[:MAX_MESSAGE] or type(error).__name__


def failure_of(error: BaseException) -> FailureOutcome:
    """Returns the outcome of a job that has raised ``error``; prints the traceback of an unexpected one."""
    message = _text_of(error)
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
        case UnusableModelError():
            return FailureOutcome("unusable-model", message)
        case EdgeError() | ValueError():
            return FailureOutcome("failed", message)
        case _:
            # An unexpected error, so the traceback is needed.
            traceback.print_exception(error)
            return FailureOutcome("failed", f"{type(error).__name__}: {message}"[:MAX_MESSAGE])
