"""What a watcher knows at one moment of a run, and of whether its aggregator is online. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_aggregator.monitoring.terminal.snapshot import Snapshot
from fl_aggregator.monitoring.views.history_row import columns_of, summary_fields
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import MAX_STATUS_AGE
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.text import duration_text


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """What is known of a run at one moment. ``snapshot`` is null until a status has arrived.

    ``online``: what the aggregator's birth or will says. ``status_age``: seconds since the status was
    written, or since it arrived if it was not retained.
    """

    snapshot: Snapshot | None
    edges: m.Edges | None
    online: bool
    status_age: float | None

    @property
    def is_live(self) -> bool:
        """Whether the aggregator is online and has published a status recently."""
        return (
            self.snapshot is not None
            and self.online
            and self.status_age is not None
            and self.status_age < MAX_STATUS_AGE
        )

    @property
    def problem_text(self) -> str:
        """What is wrong with the aggregator, since when, and what can be done; empty if nothing is wrong."""
        if self.snapshot is None or self.is_live:
            return ""
        status = self.snapshot.status
        if self.snapshot.ended and not self.online:
            return ""
        age_text = "" if self.status_age is None else f" ({duration_text(self.status_age)} ago)"
        since = f"since {status.written}{age_text}"
        if self.online:
            return (
                f"no message from the aggregator {since}, although it is not known to be offline: it or its connection "
                "hangs; if it does not recover, stop it where it runs and start it again with --resume"
            )
        return (
            f"the aggregator is offline, its last status was at {status.written}{age_text}: edges keep their updates; "
            f"resume the run where it ran, with {aggregator_command('start', '--resume', 'DIR')}"
        )


def as_json(observed: ObservedRun, *, full: bool) -> dict[str, Any]:
    """What is known of a run as an object for JSON. ``full``: with the curves and all edges."""
    snapshot = observed.snapshot
    fields: dict[str, Any] = {
        "aggregator": "online" if observed.online else "offline",
        "alive": observed.is_live,
        "age": None if observed.status_age is None else round(observed.status_age, 1),
        "status": None if snapshot is None else snapshot.status.model_dump(mode="json"),
    }
    if snapshot is None:
        return fields
    last = snapshot.last_round
    fields["last"] = None if last is None else summary_fields(last)
    fields["time_left"] = snapshot.time_left()
    counts = snapshot.edge_counts
    fields["edges"] = None if counts is None else dict(counts.counts)
    if full:
        fields["rounds"] = [summary_fields(record) for record in snapshot.recent.values()]
        fields["history"] = columns_of(snapshot.rows).model_dump(mode="json")
        edges = None if observed.edges is None else observed.edges.model_dump(mode="json")
        fields["every_edge"] = edges and edges["edges"]
        fields["environments"] = edges and edges["environments"]
    return fields
