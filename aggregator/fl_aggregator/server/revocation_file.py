"""The file with the list of revoked kits: read at the start, and again when it changes (protocol, 14)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import UserError
from fl_shared.security.revocations import FILE_NAME, MAX_LIST, InvalidList, RevocationList
from fl_shared.security.signatures import Verifier
from fl_shared.system.files import read_at_most

LOG: Final = logging.getLogger(__name__)

CHECK_SECONDS: Final = 5.0
"""Seconds from one look at the file to the next."""

_Stamp = tuple[int, int, int]


class RevocationFile:
    """Follows the file ``path``; null if there is none to follow.

    ``number``: of the newest list that the run has been told of. ``clock``: monotonic, in seconds.
    """

    def __init__(
        self,
        path: Path | None,
        verifier: Verifier | None,
        number: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._verifier = verifier
        self._number = number
        self._clock = clock
        self._stamp: _Stamp | None = None
        """Of the file whose content is known: in force, or not valid."""
        self._problem = ""
        """Why the file could not be opened the last time; empty if it could."""
        self._next = -math.inf if path is not None and verifier is not None else math.inf

    @classmethod
    def beside_kit(cls, access: BrokerAccess, number: int) -> RevocationFile:
        """The file beside the aggregator's kit. Without a kit there is none to follow."""
        verifier = None if access.kit is None else Verifier(access.kit.enrolment_public)
        return cls(access.revoked, verifier, number)

    def read_first(self) -> RevocationList | None:
        """Reads the list with which a run begins, or goes on; null if there is none.

        Raises ``UserError`` for one that cannot be used: the run would obey kits that were revoked.
        """
        if self._path is None or self._verifier is None:
            return None
        self._next = self._clock() + CHECK_SECONDS
        try:
            newest = self._read()
        except (InvalidList, OSError) as error:
            raise UserError(f"{self._path}: {_text(error)}") from None
        if newest is not None:
            return self._taken(newest)
        if self._number:
            raise UserError(
                f"{self._path}: is missing, but this run has obeyed list {self._number}; "
                "copy the newest list from fl-aggregator provision to this path"
            )
        LOG.info("no %s next to the kit: only the broker refuses revoked kits", FILE_NAME)
        return None

    def due(self) -> float:
        """Returns the time of the clock at which `poll` looks at the file again; ∞ for never."""
        return self._next

    def poll(self) -> RevocationList | None:
        """Returns a list that is newer than the last one; null if there is none, or it is not time to look.

        A file that cannot be used is named in the log, once for each of its changes, and the last list stays. One that
        cannot be opened is tried again each time: who may read it can change without the file, and so can the disk.
        """
        if self._clock() < self._next:
            return None
        self._next = self._clock() + CHECK_SECONDS
        try:
            newest = self._read()
        except (InvalidList, OSError) as error:
            text = _text(error)
            if isinstance(error, InvalidList) or text != self._problem:
                LOG.error("%s: %s; the previous list stays in force", self._path, text)
            self._problem = "" if isinstance(error, InvalidList) else text
            return None
        self._problem = ""
        if newest is None or newest.number == self._number:
            return None
        return self._taken(newest)

    def _taken(self, newest: RevocationList) -> RevocationList:
        self._number = newest.number
        LOG.info("list %d of revoked kits is in force: %d keys", newest.number, len(newest.keys))
        return newest

    def _read(self) -> RevocationList | None:
        assert self._path is not None
        assert self._verifier is not None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            if self._stamp is not None:
                self._stamp = None
                LOG.error("%s is missing; the previous list stays in force", self._path)
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return None
        content, _ = read_at_most(self._path, MAX_LIST + 1, regular=True)
        self._stamp = stamp
        if len(content) > MAX_LIST:
            raise InvalidList(f"larger than {MAX_LIST} bytes")
        newest = RevocationList.read(content, self._verifier)
        if newest.number < self._number:
            raise InvalidList(
                f"number: {newest.number}, but list {self._number} is in force; expected a newer one"
            )
        return newest


def _text(error: InvalidList | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
