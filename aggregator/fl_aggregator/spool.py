"""The spool: accepted updates of the open round, as they came, one file each.

An update is here before its edge hears ``accepted``. Written beside and renamed, so that a file that is there is
whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

DIRECTORY: Final = "spool"


class Spool:
    """Updates under ``DIR/spool/<round>/<client>.update``."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / DIRECTORY
        self._root.mkdir(parents=True, exist_ok=True)

    def put(self, round_number: int, client: str, payload: bytes) -> None:
        """Keeps an update. Raises ``OSError`` (disk full, say), and then nothing is kept."""
        folder = self._root / str(round_number)
        folder.mkdir(exist_ok=True)
        beside = folder / f"{client}.part"
        try:
            beside.write_bytes(payload)
            beside.rename(folder / f"{client}.update")
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def get(self, round_number: int, client: str) -> bytes:
        return (self._root / str(round_number) / f"{client}.update").read_bytes()

    def forget(self, round_number: int) -> None:
        """Deletes a round's updates; none there is fine."""
        shutil.rmtree(self._root / str(round_number), ignore_errors=True)
