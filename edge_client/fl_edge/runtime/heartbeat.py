"""A file whose age tells whether the edges of this process are at work; a health check needs no network for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from fl_shared.errors import UserError

LOG = logging.getLogger(__name__)

BEAT_INTERVAL: Final = 5.0


class Heartbeat:
    """Touches ``path``, every 5 s at most. ``now`` is any clock's, in seconds."""

    def __init__(self, path: Path, now: float) -> None:
        """Raises ``UserError`` if there can be no such file. One that is there says nothing until the first beat."""
        self._path = path
        self._next = now
        self._failed = False
        try:
            with path.open("ab"):
                pass
            path.unlink()
        except OSError as error:
            raise UserError(f"--heartbeat {path}: cannot be written to: {error.strerror}") from None

    def beat(self, now: float) -> None:
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
