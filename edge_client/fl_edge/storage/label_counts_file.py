"""Writes how each edge's examples are distributed over the classes: one JSON line for each edge.

The file is for the report on a simulation. Only a user who runs all edges on one machine asks for it
(``--parts-file``), and nothing in it is ever sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from fl_shared.errors import UserError

LOG = logging.getLogger(__name__)


class LabelCountsFile:
    """Appends label counts to ``path``; ``None`` to write nothing.

    An edge whose partition changes gets another line, and the last one counts. A line that cannot be written
    is left out, and the first such failure is logged: no edge stops training because of it.
    """

    def __init__(self, path: Path | None) -> None:
        """Checks that the file can be written. Raises ``UserError`` if it cannot."""
        self._path = path
        self._written: dict[str, str] = {}
        self._failed = False
        if path is not None:
            existed = path.exists()
            try:
                with path.open("ab"):
                    pass
                if not existed:
                    path.unlink()
            except OSError as error:
                raise UserError(f"--parts-file {path}: cannot be written to: {error.strerror}") from None

    def append(self, client: str, examples: int, holdout_examples: int, labels: Mapping[str, int]) -> None:
        """Appends a line for ``client``, unless it is the same as the client's last one.

        ``labels`` has the number of examples of each class, including held-out ones; if it is empty, no line
        is written.
        """
        if self._path is None or not labels:
            return
        line = json.dumps(
            {"client": client, "examples": examples, "holdout": holdout_examples, "labels": dict(labels)}
        )
        if self._written.get(client) == line:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            if not self._failed:
                LOG.warning(
                    "%s: %s; the report will not show the labels of all edges",
                    self._path,
                    error.strerror or error,
                )
            self._failed = True
        else:
            self._written[client] = line
