"""Runs over a broker whose aggregator and edges are killed in turns."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.support import programs
from tests.support.crashing_runs import events
from tests.support.wait import wait_until


@contextmanager
def killed_in_turns(
    directory: Path,
    broker: str,
    arguments: Iterable[str],
    start_edges: Callable[[], programs.Program],
    versions: Iterable[int],
) -> Iterator[None]:
    """Does a run in which one side is killed after each of ``versions``: the aggregator, or the edges at every fourth.

    When the body begins, the run has ended well. The edges live until it ends.
    """
    with ExitStack() as stack:
        edges = stack.enter_context(start_edges())
        run = stack.enter_context(programs.aggregator(directory, broker, *arguments))
        for version in versions:
            wait_until(partial(_has_made, directory, version), 120, f"version {version}")
            if version % 4:
                run.send(signal.SIGKILL)
                run.wait()
                run = stack.enter_context(programs.resumed(directory, "--broker", broker))
            else:
                edges.send(signal.SIGKILL)
                edges.wait()
                edges = stack.enter_context(start_edges())
        run.ends_well(240)
        yield


def _has_made(directory: Path, version: int) -> bool:
    """Whether the journal has this version."""
    return len([one for one in events(directory) if one["event"] == "ModelCreated"]) > version
