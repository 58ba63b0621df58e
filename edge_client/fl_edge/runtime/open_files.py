"""How many files the edges of a process need open, and what is said if there may not be so many."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Final

from fl_edge.runtime.worker_setup import EdgeSettings
from fl_shared.errors import UserError
from fl_shared.system.file_limit import raise_file_limit

LOG = logging.getLogger(__name__)

FILES_OF_WORK: Final = 4
"""Open files that an edge needs besides its lock and its connections while it has an update."""
OTHER_FILES: Final = 200
"""Open files that the process may need besides."""


def check_file_limit(edges: Sequence[EdgeSettings]) -> None:
    """Raises the limit of open files as far as possible. Raises ``UserError`` if there are too few for all connections.

    Logs a warning if there are too few for the updates of all edges at once.
    """
    limit = raise_file_limit()
    needed = OTHER_FILES + sum(2 + ("predict" in edge.roles) for edge in edges)
    if limit < needed:
        raise UserError(
            f"{len(edges)} edges need {needed} open files, but the limit is {limit:.0f}: raise it "
            f"(ulimit -n {needed}), or divide the edges among several processes"
        )
    if limit < (most := needed + FILES_OF_WORK * len(edges)):
        LOG.warning(
            "the limit of open files is %.0f, but up to %d are needed if all edges train in one round: ulimit -n %d",
            limit,
            most,
            most,
        )


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether an error means that this process may open no more files."""
    return isinstance(error, OSError) and error.errno == errno.EMFILE
