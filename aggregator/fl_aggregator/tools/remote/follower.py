"""Receives the messages that are retained for observers of a run, and makes snapshots of them.

Publishes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts, Snapshot, names_of
from fl_aggregator.monitoring.views.edge_states import EVALUATES_REASON
from fl_aggregator.monitoring.views.history_row import rows_of
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.tools.remote.observer import Observer, status_age
from fl_aggregator.tools.remote.sighting import ObservedRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import MAX_NAMES, STATUS_WAIT

RETAINED_WAIT: Final = 0.5
"""Seconds to wait for retained messages, which follow SUBACK at once.

The states of 10,000 edges are one megabyte.
"""
MAX_RESULTS: Final = 100
EVALUATION_WAIT: Final = 3.0
"""Seconds to wait for a round's metrics, with which its result is sent again during the next round."""


class Follower(Observer):
    """Keeps all that is retained for observers, and the results of rounds.

    `observed_run` says what is known.
    """

    def __init__(self, access: BrokerAccess) -> None:
        super().__init__(access, m.History, m.Edges, m.Result, maximum_packet_size=4 * MAX_NAMES)
        self._history: m.History | None = None
        self._edges: m.Edges | None = None
        self._results: dict[int, RoundRecord] = {}
        self._unreported: deque[tuple[int, float]] = deque(maxlen=MAX_RESULTS)

    def wait_for_run(self, wait: float, *, may_have_ended: bool) -> bool:
        """Waits up to ``wait`` seconds for the status of a run. False if there is none.

        Unless it ``may_have_ended``, waits for that of a run that has not. Raises ``UserError``.
        """

        def is_found() -> bool:
            status = self.status
            return status is not None and (may_have_ended or status.phase not in m.FINAL_PHASES)

        return self.wait_for(is_found, wait)

    def wait_for_status(self, wait: float) -> ObservedRun:
        """Waits up to ``wait`` seconds for a status, and shortly for the rest. Returns what is known then.

        If the aggregator is online but its status is old, or that of an earlier run, waits up to ``STATUS_WAIT``
        seconds for a newer one. Raises ``UserError``.
        """
        if self.wait_for(lambda: self.status is not None, wait):
            self.wait_for(lambda: False, RETAINED_WAIT)
        self.wait_for(lambda: not self._is_status_stale(), STATUS_WAIT)
        return self.observed_run()

    def _is_status_stale(self) -> bool:
        observed = self.observed_run()
        status = self.status
        if status is None or not observed.online:
            return False
        if self.born is not None and self.born.run != status.run:
            return True
        return not observed.is_live and status.phase not in m.FINAL_PHASES

    def on_message(self, message: m.Message, received: mqtt.Received) -> None:
        """Keeps newer messages, and forgets the results of another run."""
        if isinstance(message, m.Status) and self.status is not None and message.run != self.status.run:
            self._results.clear()
            self._unreported.clear()
        super().on_message(message, received)
        match message:
            case m.History():
                self._history = message
            case m.Edges() if self._edges is None or _is_newer(message, self._edges):
                self._edges = message
            case m.Result(round=number) if number > 0 and self._is_of_run(message):
                known = number in self._results
                self._results[number] = RoundRecord.of_result(message)
                if len(self._results) > MAX_RESULTS:
                    del self._results[min(self._results)]
                if not known and not received.retain:
                    self._unreported.append((number, time.monotonic()))

    def _is_of_run(self, message: m.Scoped) -> bool:
        return self.status is None or message.run == self.status.run

    # --- what is known ------------------------------------------------------------------------------------

    def observed_run(self) -> ObservedRun:
        """What is known of the run now."""
        edges = self._edges if self._edges is not None and self._is_of_run(self._edges) else None
        observed = ObservedRun(self._snapshot(edges), edges, self.is_online, self._status_age())
        if observed.snapshot is None or observed.is_live:
            return observed
        return replace(observed, snapshot=replace(observed.snapshot, stalled=True))

    def _status_age(self) -> float | None:
        if self.status is None:
            return None
        if self.live_at is not None:
            return time.monotonic() - self.live_at
        return max(0.0, status_age(self.status))

    def pop_ended_rounds(self, *, include_unevaluated: bool = False) -> Iterator[RoundRecord]:
        """The rounds that have ended since the last call, in order.

        A round waits for its evaluation, at most ``EVALUATION_WAIT`` seconds; with ``include_unevaluated``, none
        waits.
        """
        while self._unreported:
            number, received_at = self._unreported[0]
            record = self._results.get(number)
            if record is not None:
                is_evaluated = record.version is None or record.split is not None
                if (
                    not is_evaluated
                    and not include_unevaluated
                    and time.monotonic() - received_at < EVALUATION_WAIT
                ):
                    return
                yield record
            self._unreported.popleft()

    def _snapshot(self, edges: m.Edges | None) -> Snapshot | None:
        status = self.status
        if status is None:
            return None
        history = self._history
        rows = () if history is None or history.run != status.run else rows_of(history.columns)
        recent = dict(self._results)
        declared = [] if history is None or history.metrics is None else list(history.metrics)
        # Metrics that were measured after a round's end are in the history before the result is sent again.
        for row in rows[-MAX_RESULTS:]:
            if row.round in recent:
                record = recent[row.round]
                split = row.split or record.split
                recent[row.round] = record.model_copy(
                    update={
                        "metrics": {**record.metrics, **row.metrics},
                        "split": split,
                        "declared": declared,
                    }
                )
        counts = None
        if edges is not None:
            counts = EdgeCounts.of(
                ((name, view.state, view.reason) for name, view in edges.edges.items()),
                edges.round,
                m.environment_counts(edges.environments, (view.environment for view in edges.edges.values())),
            )
        return Snapshot(status, rows, dict(sorted(recent.items())), counts, _waiting_text(status, edges))


def _is_newer(new: m.Edges, old: m.Edges) -> bool:
    if new.run != old.run:
        return True  # the broker retains only the newest run's
    return (new.incarnation, new.seq) >= (old.incarnation, old.seq)


def _waiting_text(status: m.Status, edges: m.Edges | None) -> str:
    """Which edges the run waits for before a round opens; empty if it does not wait."""
    if status.phase != "selecting" or status.have >= status.need:
        return ""
    phrases = [f"{status.have} of {status.need} ready"]
    if edges is not None:
        loading = _edges_in_state(edges, "present")
        offline = [(name, view.reason) for name, view in edges.edges.items() if view.state == "offline"]
        for label, edge_names in (("not ready", loading), ("offline", offline)):
            if edge_names:
                phrases.append(f"{label}: {names_of(edge_names[:10], len(edge_names))}")
        evaluators = sum(view.reason == EVALUATES_REASON for view in edges.edges.values())
        unknown = status.need - (len(edges.edges) - evaluators) - edges.left_out
        if unknown > 0:
            phrases.append(f"{unknown} more have not connected yet")
    return "; ".join(phrases)


def _edges_in_state(edges: m.Edges, state: m.EdgeStateName) -> list[tuple[str, str | None]]:
    return [
        (name, view.reason)
        for name, view in edges.edges.items()
        if view.state == state and view.reason not in (None, EVALUATES_REASON)
    ]
