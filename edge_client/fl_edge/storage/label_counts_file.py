"""How each edge's data are spread over the classes, for the report on a simulation: one JSON line an edge.

Only who runs all edges on one machine asks for it (``--parts-file``). Nothing of it is ever sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

LOG = logging.getLogger(__name__)


class PartsFile:
    """Appends to ``path`` (null: to nothing). An edge whose part changes has another line; the last one counts.

    A line that cannot be written is said once and left out: no edge stops learning for it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: dict[str, str] = {}
        self._failed = False

    def append(self, client: str, examples: int, holdout_examples: int, labels: Mapping[str, int]) -> None:
        """``labels``: examples of each class, held-out ones included; without any, no line is written."""
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
