"""What can go wrong on the learning side of an edge, as types. Their texts are meant for people."""

from __future__ import annotations


class EdgeError(Exception):
    """The parent of all errors here."""


class UnknownTaskError(EdgeError):
    """No task of that name, or one that cannot be loaded."""


class DataMissingError(EdgeError):
    """The task's data set is not on this edge; the text says which files to put where."""


class DataCorruptError(DataMissingError):
    """Files of the data set were found, but are not what their format says."""


class PayloadError(EdgeError):
    """A prediction request that is no image (or not one that we read)."""


class ManifestMismatchError(EdgeError):
    """The model that was sent is not of the shape that the task has on this edge."""


class DivergedError(EdgeError):
    """Training or evaluation gave numbers that are not finite."""


class CancelledError(EdgeError):
    """The job was called off."""
