"""An event costs the same however many edges there are. Lines of Python are counted, not seconds."""

from __future__ import annotations

import pytest

from fl_aggregator.monitoring.views.notices import WaitingNotices
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.state import Run
from tests.support.counted_lines import lines_of
from tests.support.large_runs import BASE, MANIFEST, collecting, waiting

UPDATE = on.UpdateMetadata(
    client="7", session="s7", round=4, base=BASE.digest, digest="c" * 64, manifest=MANIFEST,
    examples=10, steps=1, size=9,
)  # fmt: skip
EVENTS: dict[str, on.Event] = {
    "registers": on.Registered(
        now=2.0, client="7", session="new", device="d7", roles=("train",), encodings=("f32",),
        manifest=MANIFEST, examples=10, metrics=(),
    ),
    "is new": on.Registered(now=2.0, client="p", session="new", device="p", roles=("predict",), encodings=()),
    "is lost": on.EdgeLost(now=2.0, client="7", session="s7"),
    "offers": on.UpdateOffered(now=2.0, update=UPDATE),
    "has sent": on.UpdateArrived(now=2.0, update=UPDATE),
    "is stored": on.UpdateStored(now=2.0, update=UPDATE),
}  # fmt: skip


def lines(state: Run, event: on.Event) -> int:
    """How many lines a step takes, and what the loop asks after each step."""
    notices = WaitingNotices()

    def happens() -> None:
        after, effects = step(state, event)
        due(after)
        notices.observe_declined(after, event.now)
        notices.observe(after, effects, event.now)

    return lines_of(happens)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_costs_the_same_among_more_edges(name: str) -> None:
    event = EVENTS[name]
    assert lines(collecting(3000, 10), event) <= 1.2 * lines(collecting(300, 10), event)
    assert lines(collecting(3000, 1000), event) <= 1.2 * lines(collecting(3000, 100), event)
    assert lines(waiting(3000, 10), event) <= 1.2 * lines(waiting(300, 10), event)
