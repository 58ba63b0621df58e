"""The limit of open files of this process."""

from __future__ import annotations

import contextlib
import resource


def raise_file_limit() -> float:
    """Raises the soft limit of open files to the hard one, and returns the limit, which may be infinite.

    Shells and systemd set a soft limit of 1024; a broker or a fleet has thousands of connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports "infinity" as the hard limit, but accepts less.
    for limit in (hard, 10_240):
        if soft == resource.RLIM_INFINITY or (limit != resource.RLIM_INFINITY and limit <= soft):
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
            break
    return float("inf") if soft == resource.RLIM_INFINITY else soft
