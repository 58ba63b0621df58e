"""Reads the run under a prefix once, from any machine that may subscribe, even if its aggregator is offline.

Everything comes from retained messages: ``fl/aggregator``, ``fl/status``, ``fl/history``,
``fl/round/<n>/edges`` and the last results (docs/protocol.md, 8.4 and 8.9 to 8.11).
"""

from __future__ import annotations

from fl_aggregator.monitoring.terminal.text import summary_lines
from fl_aggregator.tools.remote.follower import Follower
from fl_aggregator.tools.remote.sighting import ObservedRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed
from fl_shared.system.text import duration_text


def observe_run(access: BrokerAccess, wait: float) -> ObservedRun:
    """What is known of the run, after at most ``wait`` seconds for the first status.

    Raises ``UserError`` if the broker cannot be reached or refuses the subscriptions, ``RunFailed`` if there
    is no run.
    """
    with Follower(access) as follower:
        observed = follower.wait_for_status(wait)
        if observed.snapshot is None:
            raise RunFailed(no_run_message(follower, wait))
        return observed


def no_run_message(follower: Follower, wait: float) -> str:
    """Why no run was found, in words. ``wait``: the seconds that were spent waiting."""
    if not follower.subscribed:
        return f"the broker has not answered the subscription within {duration_text(wait)} (--wait)"
    if (last := follower.status) is not None:
        return (
            f"no run {follower.where} has begun within {duration_text(wait)} (--wait); "
            f"the last one, {last.run}, has ended: {last.phase}"
        )
    return (
        f"no run {follower.where}: no status arrived within {duration_text(wait)} (--wait); are --broker and "
        f"--prefix those of the run, has it been started, and may this account read {follower.status_topic}?"
    )


def status_lines(observed: ObservedRun) -> list[str]:
    """What is known of a run as lines for a person, first what is wrong; empty without a status."""
    if observed.snapshot is None:
        return []
    problem_lines = [observed.problem_text] if observed.problem_text else []
    return [*problem_lines, *summary_lines(observed.snapshot)]
