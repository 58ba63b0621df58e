"""Follows a run until it ends: as a live view on a terminal, as lines elsewhere, or as lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.live import Live

from fl_aggregator.monitoring.terminal.render import FULL_TABLE_WIDTH, View, table
from fl_aggregator.monitoring.terminal.text import progress_line, round_line, summary_lines
from fl_aggregator.monitoring.views.history_row import summary_fields
from fl_aggregator.monitoring.views.notices import FIRST_NOTICE_DELAY, MAX_NOTICE_INTERVAL
from fl_aggregator.tools.remote.follower import Follower
from fl_aggregator.tools.remote.sighting import ObservedRun
from fl_aggregator.tools.remote.sighting import as_json as fields_of_sight
from fl_aggregator.tools.remote.status import no_run_message
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import INTERRUPTED, RunFailed
from fl_shared.system.backoff import backoff
from fl_shared.system.text import duration_text

REFRESH_INTERVAL: Final = 0.25
DEFAULT_WAIT: Final = 5.0
"""Seconds to wait for the first status, if the user does not say how long."""
FINAL_MESSAGES_WAIT: Final = 1.0
"""Seconds to wait after the last status, since the last result and the last edge states may follow it."""
EXIT_CODES: Final = {"finished": 0, "failed": RunFailed.exit_code, "interrupted": INTERRUPTED}


def watch(
    access: BrokerAccess, wait: float | None, give_up: float, *, as_json: bool, console: Console
) -> int:
    """Shows the run on ``console`` until it ends, and returns the exit code for its outcome.

    ``wait``: seconds for a run that has not ended; null: shows also one that has, and waits a few seconds for its
    status. ``give_up``: seconds without the broker, or with an aggregator that is offline, after which it raises
    ``RunFailed``. Raises ``UserError`` if the broker cannot be reached.
    """
    with Follower(access) as follower:
        if not follower.wait_for_run(DEFAULT_WAIT if wait is None else wait, may_have_ended=wait is None):
            raise RunFailed(no_run_message(follower, DEFAULT_WAIT if wait is None else wait))
        follower.wait_for_status(0.0)
        if as_json:
            return _follow(follower, give_up, _JsonOutput(console))
        if not console.is_terminal:
            return _follow(follower, give_up, _LineOutput(console))
        with _LiveOutput(console) as output:
            return _follow(follower, give_up, output)


class _JsonOutput:
    """Writes a line of JSON for each status, each round that has ended, and each loss of a connection."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_key: object = None

    def show(self, follower: Follower, observed: ObservedRun, *, last: bool) -> None:
        for record in follower.pop_ended_rounds(include_unevaluated=last):
            self._write({"round": summary_fields(record)})
        key = (
            observed.snapshot and observed.snapshot.status,
            observed.online,
            follower.lost and follower.lost[1],
        )
        if key != self._last_key or last:
            self._last_key = key
            connected = {"broker": "connected" if follower.lost is None else follower.lost[1]}
            self._write(connected | fields_of_sight(observed, full=last))

    def _write(self, fields: dict[str, object]) -> None:
        self._console.file.write(json.dumps(fields) + "\n")
        self._console.file.flush()


class _LineOutput:
    """Prints the run once, then each round that ends, and its progress meanwhile at growing intervals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._problem = ""
        self._lacked_broker = False
        """Whether the present problem has been, at least for a time, that there is no broker."""
        self._printed_at = 0.0
        self._repeats = 0
        self._summary: list[str] = []

    def show(self, follower: Follower, observed: ObservedRun, *, last: bool) -> None:
        snapshot = observed.snapshot
        if snapshot is None:
            return
        if not self._summary:
            self._summary = summary_lines(snapshot)
            self._print(self._summary)
        rounds = [
            round_line(record, snapshot.status.rounds)
            for record in follower.pop_ended_rounds(include_unevaluated=last)
        ]
        if rounds:
            self._print(rounds)
            self._repeats = 0
        problem = "" if snapshot.ended else _problem_text(follower, observed)
        if bool(problem) != bool(self._problem):
            back = "broker and aggregator are back" if self._lacked_broker else "the aggregator is back"
            self._print([problem or back])
            self._problem, self._repeats, self._lacked_broker = problem, 0, False
        self._lacked_broker |= follower.lost is not None
        if last:
            if (summary := summary_lines(snapshot)) != self._summary:
                self._print(summary)
        elif time.monotonic() - self._printed_at >= backoff(
            self._repeats, FIRST_NOTICE_DELAY, MAX_NOTICE_INTERVAL
        ):
            self._repeats += 1
            self._print([problem or progress_line(snapshot)])

    def _print(self, lines: Iterable[str]) -> None:
        self._printed_at = time.monotonic()
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _LiveOutput:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._view = View(None)
        self._live = Live(
            get_renderable=lambda: self._view, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> _LiveOutput:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, follower: Follower, observed: ObservedRun, *, last: bool) -> None:
        ended = observed.snapshot is not None and observed.snapshot.ended
        self._view = View(observed.snapshot, "" if ended else _problem_text(follower, observed))
        if last and observed.snapshot is not None:
            self._live.stop()
            if observed.snapshot.recent:
                narrow = self._console.width < FULL_TABLE_WIDTH
                recent = observed.snapshot.recent
                self._console.print(table(recent.values(), narrow=narrow, earlier=min(recent) - 1))
            for line in summary_lines(observed.snapshot):
                self._console.print(line, markup=False, highlight=False)


def _follow(follower: Follower, give_up: float, output: _JsonOutput | _LineOutput | _LiveOutput) -> int:
    ended_at: float | None = None
    unreachable_since: float | None = None
    refreshed_at = 0.0
    while True:
        follower.poll(REFRESH_INTERVAL)
        now = time.monotonic()
        if now - refreshed_at < REFRESH_INTERVAL:
            continue
        refreshed_at = now
        observed = follower.observed_run()
        ended = observed.snapshot is not None and observed.snapshot.ended
        ended_at = (ended_at or now) if ended else None
        done = ended_at is not None and (now - ended_at >= FINAL_MESSAGES_WAIT or follower.lost is not None)
        output.show(follower, observed, last=done)
        if done and observed.snapshot is not None:
            return EXIT_CODES[observed.snapshot.status.phase]
        unreachable_since = (
            (unreachable_since or now) if follower.lost is not None or not observed.is_live else None
        )
        if unreachable_since is not None and not ended and now - unreachable_since >= give_up:
            problem = _problem_text(follower, observed)
            raise RunFailed(f"gave up after {duration_text(give_up)} (--give-up): {problem}")


def _problem_text(follower: Follower, observed: ObservedRun) -> str:
    if follower.lost is not None:
        since, reason = follower.lost
        return f"no broker for {duration_text(time.monotonic() - since)}: {reason}; trying again"
    return observed.problem_text
