"""One look at the run under a prefix, from any machine that may subscribe, and also when its aggregator is gone.

Everything comes from what lies retained at the broker: ``fl/aggregator``, ``fl/status``, ``fl/history``,
``fl/round/<n>/edges`` and the last results (docs/protocol.md, 8.4 and 8.9 to 8.11).
"""

from __future__ import annotations

from fl_aggregator.monitoring.terminal.text import summary_lines
from fl_aggregator.tools.remote.follower import Follower
from fl_aggregator.tools.remote.sighting import ObservedRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed
from fl_shared.system.text import duration_text


def observe_run(reach: BrokerAccess, wait: float) -> ObservedRun:
    """What is to be seen; ``wait`` seconds for the first status.

    Raises ``UserError`` if the broker cannot be reached or does not let us read, ``RunFailed`` if nothing is there.
    """
    with Follower(reach) as follower:
        sight = follower.wait_for_status(wait)
        if sight.snapshot is None:
            raise RunFailed(no_run_message(follower, wait))
        return sight


def no_run_message(follower: Follower, wait: float) -> str:
    """What was waited for in vain."""
    if not follower.subscribed:
        return f"the broker has not answered the subscription within {duration_text(wait)} (--wait)"
    return (
        f"no run {follower.where}: no status arrived within {duration_text(wait)} (--wait); "
        "are --broker and --prefix those of the run, and has it been started?"
    )


def status_lines(sight: ObservedRun) -> list[str]:
    """For a person."""
    if sight.snapshot is None:
        return []
    trouble = [sight.problem_text] if sight.problem_text else []
    return [*summary_lines(sight.snapshot), *trouble]
