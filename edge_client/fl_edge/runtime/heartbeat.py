"""A file whose age shows whether the edges of this process work; a health check needs no network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from fl_shared.errors import UserError

LOG = logging.getLogger(__name__)

BEAT_INTERVAL: Final = 5.0
"""Seconds between two beats, at least."""


class Heartbeat:
    """Touches ``path`` at most every 5 s. ``now`` is in seconds on any clock."""

    def __init__(self, path: Path, now: float) -> None:
        """Checks that the file can be written, and removes it, since an old one means nothing.

        Raises ``UserError`` if the file cannot be written.
        """
        self._path = path
        self._next = now
        self._failed = False
        try:
            with path.open("ab"):
                pass
            path.unlink()
        except OSError as error:
            raise UserError(f"--heartbeat {path}: cannot be written to: {error.strerror}") from None

    @property
    def due(self) -> float:
        """When `beat` touches the file next."""
        return self._next

    def beat(self, now: float) -> None:
        """Touches the file if that is due; of failures in a row, it logs only the first."""
        if now < self._next:
            return
        self._next = now + BEAT_INTERVAL
        try:
            self._path.touch()
        except OSError as error:
            if not self._failed:
                LOG.warning("heartbeat %s: %s", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False
