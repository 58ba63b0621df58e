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
FINAL_MESSAGES_WAIT: Final = 1.0
"""Seconds to wait after the last status, since the last result and the last edge states may follow it."""
EXIT_CODES: Final = {"finished": 0, "failed": RunFailed.exit_code, "interrupted": INTERRUPTED}


def watch(reach: BrokerAccess, wait: float, give_up: float, *, as_json: bool, console: Console) -> int:
    """Shows the run on ``console`` until it ends, and returns the exit code for its outcome.

    ``wait``: seconds for the first status. ``give_up``: seconds without the broker, or with an aggregator
    that is offline, after which it raises ``RunFailed``. Raises ``UserError`` if the broker cannot be
    reached.
    """
    with Follower(reach) as follower:
        if follower.wait_for_status(wait).snapshot is None:
            raise RunFailed(no_run_message(follower, wait))
        if as_json:
            return _follow(follower, give_up, _JsonOutput(console))
        if not console.is_terminal:
            return _follow(follower, give_up, _LineOutput(console))
        with _LiveOutput(console) as drawn:
            return _follow(follower, give_up, drawn)


class _JsonOutput:
    """Writes a line of JSON for each status, each round that has ended, and each loss of a connection."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_key: object = None

    def show(self, follower: Follower, sight: ObservedRun, *, last: bool) -> None:
        for record in follower.pop_ended_rounds(all_of_them=last):
            self._write({"round": record.summary_fields()})
        key = (sight.snapshot and sight.snapshot.status, sight.online, follower.lost and follower.lost[1])
        if key != self._last_key or last:
            self._last_key = key
            connected = {"broker": "connected" if follower.lost is None else follower.lost[1]}
            self._write(connected | fields_of_sight(sight, everything=last))

    def _write(self, fields: dict[str, object]) -> None:
        self._console.file.write(json.dumps(fields) + "\n")
        self._console.file.flush()


class _LineOutput:
    """Prints the run once, then each round that ends, and its progress meanwhile at growing intervals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._problem = ""
        self._printed_at = 0.0
        self._repeats = 0
        self._begun = False

    def show(self, follower: Follower, sight: ObservedRun, *, last: bool) -> None:
        picture = sight.snapshot
        if picture is None:
            return
        if not self._begun:
            self._begun = True
            self._print(summary_lines(picture))
        rounds = [
            round_line(each, picture.status.rounds) for each in follower.pop_ended_rounds(all_of_them=last)
        ]
        if rounds:
            self._print(rounds)
            self._repeats = 0
        trouble = "" if picture.ended else _problem_text(follower, sight)
        if bool(trouble) != bool(self._problem):
            self._print([trouble or "broker and aggregator are back"])
            self._problem, self._repeats = trouble, 0
        if last:
            self._print(summary_lines(picture))
        elif time.monotonic() - self._printed_at >= backoff(
            self._repeats, FIRST_NOTICE_DELAY, MAX_NOTICE_INTERVAL
        ):
            self._repeats += 1
            self._print([trouble or progress_line(picture)])

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

    def show(self, follower: Follower, sight: ObservedRun, *, last: bool) -> None:
        over = sight.snapshot is not None and sight.snapshot.ended
        self._view = View(sight.snapshot, "" if over else _problem_text(follower, sight))
        if last and sight.snapshot is not None:
            self._live.stop()
            if sight.snapshot.recent:
                narrow = self._console.width < FULL_TABLE_WIDTH
                self._console.print(table(sight.snapshot.recent.values(), narrow=narrow))
            for line in summary_lines(sight.snapshot):
                self._console.print(line, markup=False, highlight=False)


def _follow(follower: Follower, give_up: float, output: _JsonOutput | _LineOutput | _LiveOutput) -> int:
    ending: float | None = None
    gone: float | None = None
    looked = 0.0
    while True:
        follower.poll(REFRESH_INTERVAL)
        now = time.monotonic()
        if now - looked < REFRESH_INTERVAL:
            continue
        looked = now
        sight = follower.observed_run()
        over = sight.snapshot is not None and sight.snapshot.ended
        ending = (ending or now) if over else None
        done = ending is not None and (now - ending >= FINAL_MESSAGES_WAIT or follower.lost is not None)
        output.show(follower, sight, last=done)
        if done and sight.snapshot is not None:
            return EXIT_CODES[sight.snapshot.status.phase]
        gone = (gone or now) if follower.lost is not None or not sight.is_live else None
        if gone is not None and not over and now - gone >= give_up:
            why = _problem_text(follower, sight)
            raise RunFailed(f"gave up after {duration_text(give_up)} (--give-up): {why}")


def _problem_text(follower: Follower, sight: ObservedRun) -> str:
    if follower.lost is not None:
        since, reason = follower.lost
        return f"no broker for {duration_text(time.monotonic() - since)}: {reason}; trying again"
    return sight.problem_text
