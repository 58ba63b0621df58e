"""An event costs the same however many edges there are. Lines of Python are counted, not seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.monitoring.views.notices import WaitingNotices
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.phases import Selecting
from fl_aggregator.round.roster import Client, Roster
from fl_aggregator.round.state import Run
from fl_shared.protocol.messages import ModelReference
from tests.support.counted_lines import lines_of

MANIFEST, BASE = "a" * 64, ModelReference(version=3, digest="b" * 64)
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


def waiting(clients: int, per_round: int) -> Run:
    """A run of registered edges that may open round 4 after 9 s."""
    known = {
        str(number): Client(
            session=f"s{number}", device=f"d{number}", roles=("train",), encodings=("f32",), registered_at=0.0,
            partition=number, manifest=MANIFEST, examples=10,
        )
        for number in range(clients)
    }  # fmt: skip
    return Run(
        settings=parse_settings(clients=clients, per_round=per_round, rounds=9),
        phase=Selecting(round=4, since=0.0, not_before=9.0),
        roster=Roster(known),
        begun=True,
        model=BASE,
        manifest=MANIFEST,
        declared=(),
    )


def collecting(clients: int, per_round: int) -> Run:
    """A run whose round 4 is open. Edge 7 is selected."""
    state, _ = step(waiting(clients, per_round), on.TimePassed(now=9.0))
    phase: Any = state.phase
    first = phase.cohort[0]
    if "7" not in phase.cohort:
        awaited = phase.awaited.without(first)
        awaited = replace(awaited, absent_at=awaited.absent_at.with_value("7", None))
        names = tuple(first if name == "7" else name for name in phase.substitutes)
        phase = replace(phase, cohort=("7", *phase.cohort[1:]), substitutes=names, awaited=awaited)
    return replace(state, phase=phase)


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
