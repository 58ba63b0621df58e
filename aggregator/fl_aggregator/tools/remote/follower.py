"""Hears what lies at the broker for whoever watches a run, and makes pictures of it. Nothing is ever published."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts, Snapshot, names_of
from fl_aggregator.monitoring.views.round_record import RoundRecord, rows_of
from fl_aggregator.tools.remote.observer import CONNECT_TIMEOUT, age, is_old_will
from fl_aggregator.tools.remote.sighting import ObservedRun
from fl_shared.cli.broker_access import BrokerReach
from fl_shared.errors import UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.protocol.limits import LIVE_WAIT, MAX_NAMES
from fl_shared.security.verified import read

REST_WAIT: Final = 0.5
"""What is retained follows the answer to SUBSCRIBE at once; the states of 10,000 edges are a megabyte of it."""
RESULTS: Final = 100
EVALUATED_WITHIN: Final = 3.0
"""Seconds; a result is sent again when its version has been evaluated, which goes on beside the next round."""


FOLLOWED: Final = (m.AggregatorPresence, m.Status, m.History, m.Edges, m.Result)


class Follower:
    """One connection, which comes back by itself. ``hear`` takes what has arrived, ``sight`` says what is known."""

    def __init__(self, reach: BrokerReach) -> None:
        """With a kit it believes only what the aggregator has signed."""
        self._verifier = None if reach.kit is None else reach.kit.verifier()
        self._prefix = reach.prefix
        self._address = str(reach.address)
        self._settings = reach.connection(maximum_packet_size=4 * MAX_NAMES)
        self._inbox: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
        self._network = Network("fl-watch")
        self._born: m.AggregatorPresence | None = None
        self._status: m.Status | None = None
        self._live_at: float | None = None
        self._history: m.History | None = None
        self._edges: m.Edges | None = None
        self._results: dict[int, RoundRecord] = {}
        self._fresh: deque[tuple[int, float]] = deque(maxlen=RESULTS)
        self.answered = False
        """Whether the broker has answered our subscription; what is retained follows."""
        self.lost: tuple[float, str] | None = None
        """Since when (monotonic) there has been no connection, and why."""

    def __enter__(self) -> Self:
        self._connection = self._network.connect(self._settings, self._inbox.put)
        try:
            self._connection.wait_connected(CONNECT_TIMEOUT, once=True)
        except BaseException:
            self._network.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._network.close()

    # --- hearing ------------------------------------------------------------------------------------------

    def hear(self, timeout: float) -> bool:
        """Takes the next thing that arrives, if one does within ``timeout`` seconds. Raises ``UserError``."""
        self._network.check()
        try:
            event = self._inbox.get(timeout=max(0.001, timeout))
        except queue.Empty:
            return False
        match event:
            case mqtt.Connected():
                self.lost = None
                rows = [CHANNELS.carrying(kind) for kind in FOLLOWED]
                self._connection.subscribe(CHANNELS.filters(self._prefix, rows))
            case mqtt.Subscribed(refused=()):
                self.answered = True
            case mqtt.Subscribed(refused=refused):
                raise UserError(
                    f"the broker does not allow this account to read {', '.join(refused)}: "
                    "use an account that may, for example the operator's"
                )
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Lost(reason=reason):
                self.lost = (time.monotonic() if self.lost is None else self.lost[0], reason)
            case mqtt.Received():
                self._received(event)
        return True

    def first_look(self, wait: float) -> ObservedRun:
        """What there is, as soon as it is: ``wait`` seconds are for the first status. Raises ``UserError``."""
        deadline = time.monotonic() + wait
        while self._status is None and (left := deadline - time.monotonic()) > 0:
            self.hear(left)
        deadline = time.monotonic() + (REST_WAIT if self._status is not None else 0.0)
        while (left := deadline - time.monotonic()) > 0:
            self.hear(left)
        deadline = time.monotonic() + LIVE_WAIT
        while self._is_doubtful() and (left := deadline - time.monotonic()) > 0:
            self.hear(left)
        return self.sight()

    def _is_doubtful(self) -> bool:
        sight = self.sight()
        over = sight.picture is not None and sight.picture.over
        return sight.online and not sight.alive and not over and self._status is not None

    def _received(self, received: mqtt.Received) -> None:
        if not received.payload:
            if isinstance(CHANNELS.parse(self._prefix, received.topic), t.StatusTopic):
                self._status = None
            return
        match read(self._prefix, received, self._verifier):
            case m.AggregatorPresence() as message if not is_old_will(message, self._born):
                self._born = message
            case m.Status() as message:
                self._take_status(message, live=not received.retain)
            case m.History() as message:
                self._history = message
            case m.Edges() as message if self._edges is None or _is_newer(message, self._edges):
                self._edges = message
            case m.Result(round=number) as message if number > 0 and self._is_of_run(message):
                known = number in self._results
                self._results[number] = RoundRecord.of_result(message)
                if len(self._results) > RESULTS:
                    del self._results[min(self._results)]
                if not known and not received.retain:
                    self._fresh.append((number, time.monotonic()))

    def _take_status(self, status: m.Status, *, live: bool) -> None:
        if self._status is not None and status.run != self._status.run:
            self._results.clear()
            self._fresh.clear()
        self._status = status
        self._live_at = time.monotonic() if live else None

    def _is_of_run(self, message: m.Scoped) -> bool:
        return self._status is None or message.run == self._status.run

    # --- what is known ------------------------------------------------------------------------------------

    def sight(self) -> ObservedRun:
        """What is known now."""
        online = self._born is not None and self._born.state == "online"
        edges = self._edges if self._edges is not None and self._is_of_run(self._edges) else None
        return ObservedRun(self._picture(edges), edges, online, self._age())

    def _age(self) -> float | None:
        if self._status is None:
            return None
        if self._live_at is not None:
            return time.monotonic() - self._live_at
        return max(0.0, age(self._status))

    def ended(self, *, all_of_them: bool = False) -> Iterator[RoundRecord]:
        """Rounds that have ended since this was asked before, once they are evaluated, or are not soon."""
        while self._fresh:
            number, heard_at = self._fresh[0]
            found = self._results.get(number)
            if found is not None:
                known = found.version is None or "accuracy" in found.metrics
                if not known and not all_of_them and time.monotonic() - heard_at < EVALUATED_WITHIN:
                    return
                yield found
            self._fresh.popleft()

    def _picture(self, edges: m.Edges | None) -> Snapshot | None:
        status = self._status
        if status is None:
            return None
        history = self._history
        rows = () if history is None or history.run != status.run else rows_of(history.columns)
        recent = dict(self._results)
        # What was measured after its end stands in the history only, until the result is sent again.
        for row in rows[-RESULTS:]:
            if row.round in recent:
                known = recent[row.round]
                recent[row.round] = known.model_copy(update={"metrics": known.metrics | row.metrics})
        crowd = None
        if edges is not None:
            crowd = EdgeCounts.of(
                ((name, view.state, view.why) for name, view in edges.edges.items()), edges.round
            )
        return Snapshot(status, rows, dict(sorted(recent.items())), crowd, _waiting(status, edges))

    @property
    def where(self) -> str:
        return f"under the prefix {self._prefix!r} at {self._address}"


def _is_newer(one: m.Edges, other: m.Edges) -> bool:
    if one.run != other.run:
        return True  # the broker keeps one run's only
    return (one.epoch, one.seq) >= (other.epoch, other.seq)


def _waiting(status: m.Status, edges: m.Edges | None) -> str:
    """For whom, before a round opens."""
    if status.phase != "selecting" or status.have >= status.need:
        return ""
    said = [f"{status.have} of {status.need} ready"]
    if edges is not None:
        loading = _named(edges, "present")
        offline = [(name, None) for name, view in edges.edges.items() if view.state == "offline"]
        for what, few in (("not ready", loading), ("offline", offline)):
            if few:
                said.append(f"{what}: {names_of(few[:10], len(few))}")
        unknown = status.need - len(edges.edges) - edges.left_out
        if unknown > 0:
            said.append(f"{unknown} more have not connected yet")
    return "; ".join(said)


def _named(edges: m.Edges, state: m.EdgeState) -> list[tuple[str, str | None]]:
    return [(name, view.why) for name, view in edges.edges.items() if view.state == state and view.why]
