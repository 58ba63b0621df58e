"""The exceptions of the learning side of an edge, whose messages are written for users."""

from __future__ import annotations


class EdgeError(Exception):
    """The base class of all exceptions in this module."""


class UnknownTaskError(EdgeError):
    """The edge has no task of this name, or cannot load it."""


class TaskOptionsError(UnknownTaskError):
    """An option of the task is unknown, missing or wrong."""


class UnknownCorrectionError(EdgeError):
    """The edge has no correction of this name, or cannot load it."""


class DataMissingError(EdgeError):
    """The task's data set is not on this edge; the message says which files to put where."""


class DataCorruptError(DataMissingError):
    """Files of the data set were found, but their content is not what their format requires."""


class DataMismatchError(DataCorruptError):
    """The edge's data can be read, but do not fit the task's options, or the model of the run.

    Either they or the options may be wrong. The message names the file, and the row, the column or the class.
    """


class TaskError(EdgeError):
    """The task's own code has a mistake; the message names what it returned and what was expected."""


class UnusableModelError(TaskError):
    """The task's model cannot be trained in a run; the message names the array at fault."""


class PayloadError(EdgeError):
    """The payload of a prediction request is not an input that the task can read."""


class ManifestMismatchError(EdgeError):
    """The received model does not have the arrays of the task's model on this edge."""


class DivergedError(EdgeError):
    """Training, evaluation or prediction produced numbers that are not finite."""


class UnmaskableError(EdgeError):
    """The sum of a masked round has no room for the update."""


class BudgetSpentError(EdgeError):
    """The training would cost more than what is left of the edge's privacy budget."""


class CancelledError(EdgeError):
    """The job was cancelled."""
